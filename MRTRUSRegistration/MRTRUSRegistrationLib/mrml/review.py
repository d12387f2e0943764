"""Looking at a case: one state, one object that shows it in all slice views, the same for every host.

The state is kept by the case node, and so by the saved scene. Timers belong to the host: it calls `tick`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

import numpy as np
import slicer

from ..errors import InputError
from .case_nodes import CaseNodes
from .comparison import (
    AXES,
    Axis,
    Comparison,
    RegisteredImages,
    copy_window,
    flicker_opacity,
    rock_opacity,
    show_volume,
)
from .contours import Contours
from .deformation_view import (
    OVERLAYS,
    Overlay,
    overlay_volume,
    overlays_of,
    show_arrows,
    show_in_slices,
    show_warped_grid,
)
from .errors_view import show_error_vectors
from .marked_points import follow
from .models import set_visible
from .stages import STAGES, Stage, show_stage, stages_of

Mode = Literal["blend", "flicker", "rock", "checkerboard", "split"]
MODES: tuple[Mode, ...] = get_args(Mode)
Deformed = Literal["none", "arrows", "grid"]
_CHOICES: dict[str, tuple[str, ...]] = {
    "stage": STAGES,
    "mode": MODES,
    "axis": AXES,
    "overlay": OVERLAYS,
    "deformation": get_args(Deformed),
}
_FRACTIONS = ("opacity", "position", "overlay_opacity")
_MAX_SQUARES = 64


@dataclass(frozen=True)
class ReviewState:
    """What is shown. `opacity`, `position` and `overlay_opacity` run from 0 to 1.

    `opacity` is that of the MR over the TRUS; `squares` and `position` belong to checkerboard and split.
    """

    stage: Stage = "deformable"
    mode: Mode = "blend"
    opacity: float = 0.5
    squares: int = 6
    position: float = 0.5
    axis: Axis = "left-right"
    overlay: Overlay = "none"
    overlay_opacity: float = 0.5
    deformation: Deformed = "none"
    contours: bool = True
    landmarks: bool = True
    vectors: bool = False
    targets: bool = True

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(
                    f"{getattr(self, name)!r} is no {name} of a review: give {', '.join(choices)}."
                )
        for name in _FRACTIONS:
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"The {name} of a review is {getattr(self, name)}: give 0 to 1.")
        if not 1 <= self.squares <= _MAX_SQUARES:
            raise InputError(f"A checkerboard of {self.squares} squares: give 1 to {_MAX_SQUARES}.")

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ReviewState:
        """The state that a case node kept; what is unknown or wrong is left at its default."""
        names = {entry.name for entry in fields(cls)}
        try:
            kept = {name: value for name, value in json.loads(text or "{}").items() if name in names}
            return cls(**kept)
        except (ValueError, TypeError, AttributeError, InputError):
            return cls()


_LAYER_FIELDS = frozenset(
    ("stage", "mode", "opacity", "squares", "position", "axis", "overlay", "overlay_opacity")
)


class Review:
    """Shows one version of a case in the slice views of its scene."""

    def __init__(self, case: CaseNodes) -> None:
        self.case = case
        self._images = RegisteredImages(case)
        self._comparison = Comparison(case, self._images)
        self._contours = Contours(case)
        self._state = ReviewState.from_json(case.attribute("Review"))
        # The array that the volume of the registered MR holds.
        self._shown: np.ndarray | None = None

    @property
    def state(self) -> ReviewState:
        return self._state

    def start(self) -> None:
        """Show the case as it was last looked at, or at its last stage; link the slice views."""
        stages = stages_of(self.case)
        if self._state.stage not in stages:
            self._state = replace(self._state, stage=stages[-1])
        if self._state.overlay not in overlays_of(self.case):
            self._state = replace(self._state, overlay="none")
        for composite in composites_of(self.case.scene):
            composite.SetLinkedControl(True)
        self.refresh()

    def prepare(self) -> None:
        """Compute the images of every stage beforehand, so that each later switch is immediate."""
        for stage in stages_of(self.case):
            self._images.mr(stage)
            self._contours.show(stage)
        self._contours.show(self._state.stage)

    def change(self, **changes: Any) -> ReviewState:
        """Change the state by its fields' names and show the difference.

        `InputError`, and nothing changed, for a value that cannot be shown.
        """
        wanted = replace(self._state, **changes)
        self._check(wanted)
        different = {name for name in changes if getattr(wanted, name) != getattr(self._state, name)}
        self._state = wanted
        self._show(different)
        return wanted

    def refresh(self) -> None:
        """Show everything again, after nodes were edited, deleted or loaded."""
        self._check(self._state)
        self._show({entry.name for entry in fields(ReviewState)})

    def tick(self, time_s: float) -> None:
        """Show the moment `time_s` of a flickering or rocking display; nothing in the other modes."""
        if self._state.mode == "flicker":
            set_foreground_opacity(self.case.scene, flicker_opacity(time_s))
        elif self._state.mode == "rock":
            set_foreground_opacity(self.case.scene, rock_opacity(time_s))

    def stop(self) -> None:
        """Leave the review: the segmentations are shown again, and what was made for the review goes."""
        for role in ("comparison", "errorVectors", "arrows", "warpedGrid", "mrOutline", "trusOutline"):
            self.case.remove(role)
        show_in_slices(self.case, "none")
        case = self.case
        for node in (case.mr_gland, case.trus_gland, case.mr_targets, case.mr_target_segments):
            set_visible(node, True)
        if self.case.trus is not None:
            set_layers(self.case.scene, self.case.trus, self.case.mr, 0.5)
        self.case.remove("registeredMR")

    def _check(self, state: ReviewState) -> None:
        if state.stage not in stages_of(self.case):
            raise InputError(f"{self.case.name} has no {state.stage} stage: register again.")
        if state.overlay not in overlays_of(self.case):
            raise InputError(
                f"{self.case.name} has no {state.overlay} to show: register again with a deformable method."
            )
        self._images.grid()

    def _show(self, different: set[str]) -> None:
        self.case.set_attribute("Review", self._state.to_json())
        if "stage" in different:
            show_stage(self.case, self._state.stage)
            self._contours.show(self._state.stage)
        if different & _LAYER_FIELDS:
            self._show_layers()
        if different & {"stage", "contours"}:
            self._contours.set_visible(self._state.contours)
        if different & {"stage", "vectors", "landmarks"}:
            self._show_landmarks()
        if different & {"deformation", "stage"}:
            self._show_deformation()
        if "targets" in different:
            self._show_targets()

    def _show_layers(self) -> None:
        state, scene = self._state, self.case.scene
        overlay = overlay_volume(self.case, state.overlay)
        if overlay is None and state.mode in ("blend", "flicker", "rock"):
            set_layers(scene, self.case.trus, self._registered_mr(), state.opacity)
            return
        set_layers(scene, self._composite(), overlay, state.overlay_opacity)

    def _composite(self) -> slicer.vtkMRMLScalarVolumeNode:
        state = self._state
        if state.mode == "checkerboard":
            return self._comparison.checkerboard(state.stage, state.squares)
        if state.mode == "split":
            return self._comparison.split(state.stage, state.position, state.axis)
        return self._comparison.blend(state.stage, state.opacity)

    def _registered_mr(self) -> slicer.vtkMRMLScalarVolumeNode:
        """The MR on the TRUS grid: drawn at once, where the MR under its transforms takes half a second."""
        voxels = self._images.mr(self._state.stage)
        known = self.case.get("registeredMR")
        # An unchanged array needs no copy; opacity sliders come through here for every step.
        if known is None or self._shown is not voxels:
            image = self._images.grid().image(voxels)
            known = show_volume(self.case, "registeredMR", image, "Registered MR")
            self._shown = voxels
        copy_window(self.case.mr, known)
        return known

    def _show_landmarks(self) -> None:
        for node in (self.case.mr_landmarks, self.case.trus_landmarks):
            set_visible(node, self._state.landmarks)
        if self._state.vectors:
            set_visible(show_error_vectors(self.case, self._state.stage), True)
        else:
            set_visible(self.case.get("errorVectors"), False)

    def _show_targets(self) -> None:
        """Those on the TRUS, and the points on the MR, which lie under its transforms and so at these places.

        Segments on the MR are hidden like the glands: under a deformation they are slow to draw.
        """
        for node in (self.case.targets, self.case.target_segments, self.case.mr_targets):
            set_visible(node, self._state.targets)
        set_visible(self.case.mr_target_segments, False)

    def _show_deformation(self) -> None:
        """Only at the deformable stage: at the others the tissue is not where the arrows lead to."""
        style = self._state.deformation if self._state.stage == "deformable" else "none"
        show_in_slices(self.case, style)
        set_visible(self.case.get("arrows"), style == "arrows")
        set_visible(self.case.get("warpedGrid"), style == "grid")
        if style == "arrows":
            set_visible(show_arrows(self.case), True)
        elif style == "grid":
            set_visible(show_warped_grid(self.case), True)


def show_alone(
    case: CaseNodes,
    gland: slicer.vtkMRMLSegmentationNode | None,
    volume: slicer.vtkMRMLScalarVolumeNode | None,
) -> None:
    """Show one image of a case with its gland as before any registration: nobody draws under a deformation.

    A review that is started or refreshed puts both back under their transforms.
    """
    parent = case.trus.GetTransformNodeID() if case.trus is not None else None
    for node in (gland, volume):
        if node is not None:
            node.SetAndObserveTransformNodeID(parent)
    if volume is not None:
        follow(volume)
    set_layers(case.scene, volume, None, 0.0)


def composites_of(scene: slicer.vtkMRMLScene) -> Iterator[slicer.vtkMRMLSliceCompositeNode]:
    """The nodes that say what each slice view shows."""
    nodes = scene.GetNodesByClass("vtkMRMLSliceCompositeNode")
    nodes.UnRegister(None)
    for n in range(nodes.GetNumberOfItems()):
        yield nodes.GetItemAsObject(n)


def set_layers(
    scene: slicer.vtkMRMLScene,
    background: slicer.vtkMRMLScalarVolumeNode | None,
    foreground: slicer.vtkMRMLScalarVolumeNode | None,
    foreground_opacity: float,
) -> None:
    """Show one volume over another in every slice view."""
    identifiers = [node.GetID() if node is not None else None for node in (background, foreground)]
    for composite in composites_of(scene):
        composite.SetBackgroundVolumeID(identifiers[0])
        composite.SetForegroundVolumeID(identifiers[1])
        composite.SetForegroundOpacity(foreground_opacity)


def set_foreground_opacity(scene: slicer.vtkMRMLScene, opacity: float) -> None:
    """Set how much the foreground covers the background in every slice view."""
    for composite in composites_of(scene):
        composite.SetForegroundOpacity(opacity)
