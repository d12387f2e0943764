"""The section Export: files that leave Slicer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _

from .messages import shown_errors
from .readiness import Situation, why_not_export
from .section import Section

if TYPE_CHECKING:
    from .panel import Panel

_ITEMS = {
    "exportScene": ("scene",),
    "exportTransforms": ("transforms", "grid"),
    "exportMr": ("registered_mr",),
    "exportTargets": ("targets",),
    "exportReport": ("report",),
}


class ExportSection(Section):
    """Writes what is ticked into one folder."""

    def __init__(self, ui: Any, panel: Panel) -> None:
        super().__init__(ui, panel)
        ui.exportPathLineEdit.connect("currentPathChanged(QString)", self.on_folder)
        ui.exportButton.connect("clicked()", self.on_export)

    def refresh(self, now: Situation) -> None:
        folder = self.panel.parameters.exportFolder
        if self.ui.exportPathLineEdit.currentPath != folder:
            self.ui.exportPathLineEdit.currentPath = folder
        self.allow("exportButton", why_not_export(now))

    def on_folder(self, folder: str) -> None:
        if self.panel.parameters is not None:
            self.panel.parameters.exportFolder = folder

    def on_export(self) -> None:
        from ..mrml.export import export_case
        from ..mrml.target_table import target_table_csv

        parameters, case = self.panel.parameters, self.panel.case
        folder = Path(parameters.exportFolder)
        if case is None or not _may_fill(folder):
            return
        items = [item for name, group in _ITEMS.items() if getattr(parameters, name) for item in group]
        self.ui.exportLabel.text = ""
        with shown_errors(_("The files cannot be written")):
            table = target_table_csv(case) if parameters.exportTargets else None
            files = export_case(case, folder, items=items, targets_csv=table)  # type: ignore[arg-type]
            names = ", ".join(path.name for path in files)
            self.ui.exportLabel.text = _("Wrote {files} to {folder}.").format(files=names, folder=folder)


def _may_fill(folder: Path) -> bool:
    """Ask before files of an earlier export are replaced."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return True
    question = _("{folder} is not empty; files with the same names are replaced. Go on?").format(
        folder=folder
    )
    return bool(slicer.util.confirmOkCancelDisplay(question, windowTitle=_("Export")))
