"""Tables in text files, as spreadsheets save them."""

from __future__ import annotations

import csv


def filled_rows(text: str) -> list[list[str]]:
    """The rows that hold anything, cells without surrounding blanks; `csv.Error` for broken quotes.

    The first line decides whether commas, semicolons or tabs separate the cells.
    """
    first = text.lstrip().partition("\n")[0]
    reader = csv.reader(text.splitlines(), delimiter=max(",;\t", key=first.count), strict=True)
    stripped = [[cell.strip() for cell in cells] for cells in reader]
    return [cells for cells in stripped if any(cells)]
