"""Points that the user marks on one of the images: whose coordinates they have, and where to place them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _

if TYPE_CHECKING:
    from ..mrml.case_nodes import CaseNodes
    from ..mrml.job_inputs import Inputs


def attach_chosen(parameters: Any, case: CaseNodes | None) -> None:
    """Let the chosen lists move with their image, but for those whose coordinates are in doubt."""
    chosen = parameters.mrVolume, parameters.trusVolume
    shown = (case.mr, case.trus) if case is not None else chosen
    mr, trus = (image or other for image, other in zip(chosen, shown, strict=True))
    for image, points in (
        (mr, parameters.mrLandmarks),
        (mr, parameters.targets),
        (shown[0], parameters.pairMr),
        (trus, parameters.trusLandmarks),
        (shown[1], parameters.pairTrus),
    ):
        if image is not None and points is not None:
            _attach(image, points)


def _attach(image: Any, points: Any) -> None:
    from ..mrml.marked_points import attach, belongs_to, doubt, is_empty

    if belongs_to(image, points):
        attach(image, points)
    elif is_empty(points):
        attach(image, points)
        _place_here(points)
    else:
        doubt(points)


def _place_here(points: Any) -> None:
    """Let Slicer's button for placing points add to this list."""
    selection = slicer.mrmlScene.GetNodeByID("vtkMRMLSelectionNodeSingleton")
    if selection is not None:
        selection.SetReferenceActivePlaceNodeClassName(points.GetClassName())
        selection.SetActivePlaceNodeID(points.GetID())


def ask_about(inputs: Inputs) -> None:
    """Settle for every list of a run whose coordinates it has; only the user knows where it was placed."""
    from ..mrml.marked_points import attach, belongs_to

    for image, lists in (
        (inputs.mr, (inputs.mr_landmarks, inputs.targets, inputs.pair_mr)),
        (inputs.trus, (inputs.trus_landmarks, inputs.pair_trus)),
    ):
        for points in lists:
            if points is not None and not belongs_to(image, points):
                attach(image, points, where_shown=_placed_as_shown(image, points))


def _placed_as_shown(image: Any, points: Any) -> bool:
    question = _(
        "Where were the points of {points} placed? Choose Yes if it was on the fused images, where the slice "
        "views show them now. Choose No if it was on {image} alone before it was moved, or if they come from "
        "a file."
    ).format(image=image.GetName(), points=points.GetName())
    return bool(slicer.util.confirmYesNoDisplay(question, windowTitle=_("Where the points belong")))


def hide_landmarks(inputs: Inputs) -> None:
    """The result has copies of the given landmarks; both beside each other would be seen as two each."""
    for points in (inputs.mr_landmarks, inputs.trus_landmarks):
        if points is not None:
            points.SetDisplayVisibility(False)
