"""How far landmarks of the MR lie from those of the TRUS, at the stage that is asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer

from .case_nodes import CaseNodes
from .frames import points_ras
from .models import arrows, show_model
from .readers import landmarks_of
from .stages import Stage, mr_to_trus, transformed

# Yellow: neither of the two images' colours.
_COLOR = (0.94, 0.89, 0.26)


@dataclass(frozen=True)
class LandmarkError:
    """A landmark in TRUS space, LPS mm: where the TRUS has it, and where the stage puts that of the MR."""

    name: str
    trus_mm: tuple[float, float, float]
    mr_mm: tuple[float, float, float]

    @property
    def error_mm(self) -> float:
        """The target registration error of this landmark."""
        return float(np.linalg.norm(np.subtract(self.mr_mm, self.trus_mm)))


def landmark_errors(case: CaseNodes, stage: Stage) -> tuple[LandmarkError, ...]:
    """The landmarks that both images have, by name, in the order of the TRUS.

    Empty where a list of landmarks was deleted. Positions follow the nodes: a moved point counts where it is.
    """
    if case.mr_landmarks is None or case.trus_landmarks is None:
        return ()
    trus, mr = landmarks_of(case.trus_landmarks), landmarks_of(case.mr_landmarks)
    carried = points_ras(transformed(mr_to_trus(case, stage), points_ras(mr.points_mm)))
    places = dict(zip(mr.names, carried.tolist(), strict=True))
    return tuple(
        LandmarkError(name, tuple(point), tuple(places[name]))
        for name, point in zip(trus.names, trus.points_mm.tolist(), strict=True)
        if name in places
    )


def rms_error_mm(errors: tuple[LandmarkError, ...]) -> float | None:
    """Root of the mean squared error; `None` without landmarks."""
    if not errors:
        return None
    return float(np.sqrt(np.mean([error.error_mm**2 for error in errors])))


def show_error_vectors(case: CaseNodes, stage: Stage) -> slicer.vtkMRMLModelNode | None:
    """Arrows from each TRUS landmark to where the stage puts its MR landmark; `None` without landmarks.

    Slices show all of them, seen along the slice's normal.
    """
    errors = landmark_errors(case, stage)
    if not errors:
        case.remove("errorVectors")
        return None
    tails = points_ras(np.array([error.trus_mm for error in errors]))
    heads = points_ras(np.array([error.mr_mm for error in errors]))
    node = show_model(
        case, "errorVectors", arrows(tails, heads), "Landmark error vectors", color=_COLOR, projected=True
    )
    node.GetDisplayNode().SetScalarVisibility(False)
    return node


def go_to_landmark(case: CaseNodes, name: str) -> bool:
    """Let every slice view jump to a TRUS landmark; false where it was deleted."""
    if case.trus_landmarks is None:
        return False
    return go_to_point(case.trus_landmarks, case.trus_landmarks.GetControlPointIndexByLabel(name))


def go_to_point(points: slicer.vtkMRMLMarkupsFiducialNode | None, number: int) -> bool:
    """Let every slice view jump to a point of a list; false where there is no such point."""
    if points is None or not 0 <= number < points.GetNumberOfControlPoints():
        return False
    position, centred = (
        points.GetNthControlPointPositionWorld(number),
        slicer.vtkMRMLSliceNode.CenteredJumpSlice,
    )
    slicer.vtkMRMLSliceNode.JumpAllSlices(points.GetScene(), *position, centred)
    return True
