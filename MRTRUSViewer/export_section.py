"""The section Export: what leaves the viewer, as downloads."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.mrml.case_nodes import CaseNodes
from MRTRUSRegistrationLib.mrml.export import Item, export_case, items_of
from MRTRUSRegistrationLib.mrml.target_table import target_table_csv

if TYPE_CHECKING:
    from .app import Viewer

# One button may stand for several items; what it is called on the page.
_OFFERS: dict[str, tuple[str, tuple[Item, ...]]] = {
    "scene": ("Slicer scene", ("scene",)),
    "transforms": ("Transforms", ("transforms", "grid")),
    "mr": ("Registered MR", ("registered_mr",)),
    "targets": ("Targets", ("targets",)),
    "report": ("Report", ("report",)),
}


class ExportSection:
    """Writes files to a temporary folder and hands them to the browser."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        viewer.state.update({"offers": []})

    def refresh(self, case: CaseNodes | None) -> None:
        there = items_of(case) if case is not None else ()
        self._viewer.state.offers = [
            {"key": key, "title": title}
            for key, (title, items) in _OFFERS.items()
            if any(item in there for item in items)
        ]

    def content(self, offer: str) -> tuple[str, bytes]:
        """The name and the bytes of one offer, several files as one archive; `InputError` if it fails."""
        case = self._viewer.case
        if case is None or offer not in _OFFERS:
            raise InputError("There is nothing to export: register or open a case first.")
        table = target_table_csv(case) if offer == "targets" else None
        with tempfile.TemporaryDirectory(prefix="export-") as folder:
            written = export_case(case, folder, items=_OFFERS[offer][1], targets_csv=table)
            path = written[0] if len(written) == 1 else _packed(written, Path(folder) / f"{offer}.zip")
            return path.name, path.read_bytes()


def _packed(paths: tuple[Path, ...], archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as bundle:
        for path in paths:
            bundle.write(path, path.name)
    return archive
