"""Two versions of a case as a table in words and figures, for a label."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from .indicator_text import level_html

if TYPE_CHECKING:
    from ..mrml.case_nodes import CaseNodes
    from ..mrml.versions import MeasureComparison


_MEASURES = ("dsc", "tre_mean_mm", "tre_rms_mm", "hd95_mm", "folds_percent")
_MORE_IS_BETTER = ("dsc",)
# Functions, because a translation may change while Slicer runs.
_LEVELS = {"good": lambda: _("good"), "check": lambda: _("check"), "poor": lambda: _("poor")}


def version_label(case: CaseNodes) -> str:
    """A version as the user chooses it: number, method, and which result of it counts."""
    text = _("version {version}: {method}")
    if case.deformation is not None and case.attribute("Accepted") == "RIGID":
        text = _("version {version}: {method}, rigid part")
    return text.format(version=case.version, method=case.attribute("Method"))


def version_table_html(first: CaseNodes, second: CaseNodes) -> str:
    """The measures and the indicator of both, as HTML; the better figure of a row is bold."""
    from ..mrml.judgement import indicator_of
    from ..mrml.versions import compare

    found = {row.name: row for row in compare(first, second)}
    rows = [_row(found[name]) for name in _MEASURES if name in found]
    levels = [indicator_of(case).level for case in (first, second)]
    judged = [level_html(_LEVELS[level](), level) for level in levels]
    titles = [_("version {version}").format(version=case.version) for case in (first, second)]
    head = _line("th", ["", *titles, _("change")])
    return f'<table cellpadding="3">{head}{"".join(rows)}{_line("td", [_("Indicator"), *judged, ""])}</table>'


def _row(row: MeasureComparison) -> str:
    from ..plain_language import measure_text, measure_title

    texts = [measure_text(row.name, value) for value in (row.first, row.second)]
    change = row.difference
    # What prints alike is no difference.
    if change is not None and texts[0] != texts[1]:
        better = int((change > 0) is (row.name in _MORE_IS_BETTER))
        texts[better] = f"<b>{texts[better]}</b>"
    # Without the sum, small negative numbers would read as -0.00.
    shown = "" if change is None else f"{round(change, 2) + 0.0:+.2f}"
    return _line("td", [escape(measure_title(row.name)), *texts, shown])


def _line(tag: str, cells: list[str]) -> str:
    first, *others = cells
    right = "".join(f'<{tag} align="right">{cell}</{tag}>' for cell in others)
    return f'<tr><{tag} align="left">{first}</{tag}>{right}</tr>'
