"""Make the pictures of the documentation: python Testing/screenshots.py [--result FOLDER] [--output FOLDER]

Registers the sample case in the real panel, in the stand-in desktop, and takes pictures of its sections, of
real Slicer views and, where Chromium is installed, of the report. With --result nothing is run, and two
pictures of the panel stay as they are: the folder holds a finished registration of the sample case with a
confidence map (`mrtrus register … --confidence 8`).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from offscreen import OffscreenApplication, SliceViews
from PIL import Image
from PySide6 import QtWidgets
from slice_sheets import save_small, sheet
from slicer_standins import OpenModule, open_module

from MRTRUSRegistrationLib.mrml.case_nodes import CaseNodes
from MRTRUSRegistrationLib.mrml.colors import CONFIDENCE, DISPLACEMENT, JACOBIAN, ColorScale
from MRTRUSRegistrationLib.mrml.marked_points import attach
from MRTRUSRegistrationLib.mrml.markups import add_landmarks
from MRTRUSRegistrationLib.mrml.readers import landmarks_of
from MRTRUSRegistrationLib.mrml.review import set_layers
from MRTRUSRegistrationLib.mrml.scene_file import new_scene
from MRTRUSRegistrationLib.results import Landmarks

TARGET = Path(__file__).resolve().parents[1] / "Resources" / "Screenshots"
_PANE_PX = 250
_FIELD_OF_VIEW_MM = 90.0
# Smaller than Slicer's 3, which these small pictures have no room for.
_LABEL_SCALE = 2.0
_PANEL_PX = 440
_CONFIDENCE_RUNS = 8
# Far apart: at both ends of the gland and to a side.
_PAIRS = ("apex", "base", "calcifications")
_LESION_COLOR = (1.0, 0.85, 0.1)
_TO_RAS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Studio:
    """The open module, slice views of its scene, and where the pictures go."""

    module: OpenModule
    # Kept because its logics draw the points.
    application: OffscreenApplication
    views: SliceViews
    output: Path

    @classmethod
    def open(cls, output: Path) -> Studio:
        scene = new_scene()
        # The views bring the nodes that say what they show, which the panel then finds.
        application = OffscreenApplication(scene)
        views = SliceViews(application, size=_PANE_PX)
        return cls(open_module(scene), application, views, output)

    @property
    def case(self) -> CaseNodes:
        case = self.module.widget.panel.case
        assert case is not None, f"there is no result; dialogs: {self.module.desktop.errors}"
        return case

    def section(self, name: str, file: str) -> None:
        """Take the picture of one section, or of another part of the panel."""
        module = self.module
        # Twice, because wrapped texts know their height only once they know their width.
        for _ in range(2):
            module.desktop.process_events()
            needed = (module.parent.sizeHint(), module.parent.minimumSizeHint())
            module.parent.resize(_PANEL_PX, max(size.height() for size in needed))
        module.desktop.process_events()
        _save_widget(getattr(module.ui, name).qt_object, self.output / file)

    def planes(self, file: str, caption: str, *, scale: ColorScale | None = None) -> None:
        """Take the picture of the three slice views."""
        self.views.render()
        save_small(sheet(self.views, caption, scale=scale), self.output / file)

    def show(self, **changes: Any) -> None:
        """Change what the section Review shows."""
        self.module.widget.panel.review.change(**changes)

    def look_at(self, middle_mm: np.ndarray, through_mm: np.ndarray | None = None) -> None:
        """Put a point (3,) LPS mm in the middle of the views, and lay the slices through it or another."""
        self.views.centre_on(middle_mm * _TO_RAS, field_of_view_mm=_FIELD_OF_VIEW_MM)
        if through_mm is not None:
            for view in self.views.views.values():
                view.node.JumpSliceByOffsetting(*(through_mm * _TO_RAS).tolist())


def main(output: Path, result: Path | None) -> None:
    studio = Studio.open(output)
    studio.module.click("sampleCaseButton")
    mark_lesion(studio)
    case_pictures(studio)
    register(studio, result)
    review_pictures(studio)
    panel_pictures(studio)
    report_picture(studio)
    if result is None:
        versions_picture(studio)
    if studio.module.desktop.errors:
        sys.exit(studio.module.desktop.errors[0])
    studio.module.close()


def mark_lesion(studio: Studio) -> None:
    """Place a target where the sample case has its lesion."""
    parameters = studio.module.parameters
    targets = Landmarks(("Lesion",), _place(parameters.mrLandmarks, "lesions")[None])
    parameters.targets = add_landmarks(studio.module.scene, targets, "Targets", color=_LESION_COLOR)


def _place(points: Any, name: str) -> np.ndarray:
    """Where a point (3,) of a list lies, LPS mm."""
    known = landmarks_of(points)
    return known.points_mm[known.names.index(name)]


def case_pictures(studio: Studio) -> None:
    """The section Case filled in, and the MR with the marked lesion."""
    module = studio.module
    module.ui.optionalGroupBox.collapsed = False
    studio.section("caseCollapsibleButton", "panel-case.png")
    module.ui.optionalGroupBox.collapsed = True
    parameters = module.parameters
    for points in (parameters.mrLandmarks, parameters.trusLandmarks):
        points.SetDisplayVisibility(False)
    set_layers(module.scene, parameters.mrVolume, None, 0.0)
    studio.look_at(_place(parameters.mrLandmarks, "urethra"), _place(parameters.targets, "Lesion"))
    studio.planes("view-lesion-mr.png", "The lesion marked on the MR")


def register(studio: Studio, result: Path | None) -> None:
    """Press Register and take a picture on the way, or take a finished result."""
    module = studio.module
    if result is not None:
        parameters = module.parameters
        case = module.widget.logic.loadResult(result, parameters.mrVolume, parameters.trusVolume, "Sample")
        from MRTRUSRegistrationLib.mrml.targets_nodes import carry_targets_to_trus

        carry_targets_to_trus(case, parameters.targets)
        module.widget.panel.select_case(case)
        return
    module.parameters.confidenceRuns = _CONFIDENCE_RUNS
    module.click("registerButton")
    module.wait(lambda: 20 < module.ui.progressBar.value < 90, seconds=600)
    studio.section("registerCollapsibleButton", "panel-register.png")
    module.wait(lambda: not module.widget.panel.runner.running, seconds=1800)


def review_pictures(studio: Studio) -> None:
    """Every way to look at the result, through the middle of the gland."""
    case = studio.case
    for points in (case.mr_landmarks, case.trus_landmarks):
        points.GetDisplayNode().SetTextScale(_LABEL_SCALE)
    middle = middle_of_gland(case)
    studio.look_at(middle)
    studio.show(landmarks=False, targets=False, contours=True)
    for stage, caption in _STAGES.items():
        studio.show(stage=stage)
        studio.planes(f"view-{stage}.png", caption)
    studio.show(mode="checkerboard")
    studio.planes("view-checkerboard.png", "Checkerboard: squares of TRUS and of MR take turns")
    studio.show(mode="blend", deformation="grid")
    studio.planes("view-grid.png", "Grid: how the deformation bends the MR")
    studio.show(deformation="none", contours=False)
    for overlay, (scale, caption) in _OVERLAYS.items():
        studio.show(overlay=overlay)
        studio.planes(f"view-{overlay}.png", caption, scale=scale)
    studio.show(overlay="none", contours=True, landmarks=True, vectors=True)
    studio.look_at(middle, _place(case.trus_landmarks, "lesions"))
    studio.planes("view-errors.png", "Landmarks, with arrows from their place on the TRUS to that of the MR")
    studio.show(landmarks=False, vectors=False, targets=True, opacity=0.0)
    studio.look_at(middle, _place(case.targets, "Lesion"))
    studio.planes("view-lesion-trus.png", "The same lesion, carried to the TRUS")
    studio.show(opacity=0.5, landmarks=True)


_STAGES = {
    "before": "Before: the MR where it starts, over the TRUS",
    "rigid": "Rigid: the MR shifted and turned",
    "deformable": "Deformable: the MR bent to the shape that the gland has on the TRUS",
}
_OVERLAYS = {
    "displacement": (DISPLACEMENT, "Length of the displacement"),
    "jacobian": (JACOBIAN, "Change of volume (Jacobian)"),
    "confidence": (CONFIDENCE, "Confidence: spread under small changes"),
}


def middle_of_gland(case: CaseNodes) -> np.ndarray:
    """The centre (3,) LPS mm of the gland on the TRUS."""
    bounds = np.zeros(6)
    case.trus_gland.GetRASBounds(bounds)
    return bounds.reshape(3, 2).mean(axis=1) * _TO_RAS


def panel_pictures(studio: Studio) -> None:
    """The sections Review, Correct and Export as they are after a registration."""
    module = studio.module
    for name in ("review", "correct", "export"):
        getattr(module.ui, f"{name}CollapsibleButton").collapsed = False
    studio.section("reviewCollapsibleButton", "panel-review.png")
    module.ui.tablesGroupBox.collapsed = False
    studio.section("tablesGroupBox", "panel-tables.png")
    module.ui.tablesGroupBox.collapsed = True
    place_pairs(studio)
    module.ui.pairsGroupBox.collapsed = False
    studio.section("correctCollapsibleButton", "panel-correct.png")
    module.parameters.exportFolder = "sample-export"
    module.click("exportButton")
    studio.section("exportCollapsibleButton", "panel-export.png")


def place_pairs(studio: Studio) -> None:
    """Give three of the sample case's landmarks as pairs for the rigid alignment."""
    parameters = studio.module.parameters
    case = studio.case
    for image, volume, source in (
        ("Mr", case.mr, parameters.mrLandmarks),
        ("Trus", case.trus, parameters.trusLandmarks),
    ):
        points = np.array([_place(source, name) for name in _PAIRS])
        pairs = add_landmarks(
            studio.module.scene, Landmarks(_PAIRS, points), f"{image.upper()} pairs", color=_LESION_COLOR
        )
        pairs.SetDisplayVisibility(False)
        # Given in each image's own coordinates, as from a file.
        attach(volume, pairs)
        setattr(parameters, f"pair{image}", pairs)
    parameters.usePairs = True


def versions_picture(studio: Studio) -> None:
    """Register again by the pairs, and compare the two versions."""
    module = studio.module
    module.parameters.confidenceRuns = 0
    module.click("registerAgainButton")
    module.wait(lambda: not module.widget.panel.runner.running, seconds=1800)
    module.ui.versionsGroupBox.collapsed = False
    studio.section("versionsGroupBox", "panel-versions.png")


def report_picture(studio: Studio) -> None:
    """The first page of the report as a browser shows it; the old picture stays where there is no browser."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        print("No Chromium: report.png is left as it is.", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        page, picture = Path(folder) / "report.html", Path(folder) / "report.png"
        page.write_text(studio.case.report.GetText(), encoding="utf-8")
        # In a container the administrator runs it, for whom its sandbox does not work.
        options = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        options += ["--headless", "--disable-gpu", "--hide-scrollbars", "--window-size=960,1440"]
        command = [browser, *options, f"--screenshot={picture}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        with Image.open(picture) as taken:
            save_small(taken.resize((600, 900), Image.Resampling.LANCZOS), studio.output / "report.png")


def _save_widget(widget: QtWidgets.QWidget, path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        widget.grab().save(str(Path(folder) / "grab.png"))
        with Image.open(Path(folder) / "grab.png") as picture:
            save_small(picture, path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--result", type=Path, help="a finished registration of the sample case")
    parser.add_argument("--output", type=Path, default=TARGET, help="where the pictures go")
    return parser.parse_args()


if __name__ == "__main__":
    chosen = _arguments()
    paths = [path.resolve() if path else None for path in (chosen.output, chosen.result)]
    # The export is written beside nothing of the user's, and its short name stands in the picture.
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        main(*paths)
        os.chdir("/")
