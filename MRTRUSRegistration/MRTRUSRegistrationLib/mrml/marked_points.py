"""Point lists of an image that registering moves, under the same transforms as the image.

What a view shows is world coordinates, what is read of a list are the list's own. Only under the transforms
of the image is a point that was clicked on moved tissue kept at that tissue's place in the image.
"""

from __future__ import annotations

import numpy as np
import slicer

_IMAGE = "MRTRUSRegistration.Image"
_DOUBTED = "MRTRUSRegistration.Doubted"


def belongs_to(image: slicer.vtkMRMLVolumeNode, points: slicer.vtkMRMLMarkupsNode) -> bool:
    """Whether the list's own coordinates are those of the image: it moves with it, or neither is moved."""
    if points.GetNodeReference(_IMAGE) is image:
        return True
    if points.GetAttribute(_DOUBTED):
        return False
    return points.GetParentTransformNode() is image.GetParentTransformNode()


def doubt(points: slicer.vtkMRMLMarkupsNode) -> None:
    """Remember that a list was found apart from its image, for when the image goes back to its own place."""
    points.SetAttribute(_DOUBTED, "1")


def is_empty(points: slicer.vtkMRMLMarkupsNode) -> bool:
    """Whether nothing is placed yet; the point that hangs at the mouse does not count."""
    return points.GetNumberOfDefinedControlPoints(False) == 0


def attach(
    image: slicer.vtkMRMLVolumeNode, points: slicer.vtkMRMLMarkupsNode, *, where_shown: bool = False
) -> None:
    """Let a list move with an image from now on.

    Its own coordinates are taken for those of the image, unless `where_shown`: then every point stays where
    the views show it, and gets the coordinates of the tissue that is shown there.
    """
    shown_ras_mm = _world(points) if where_shown else None
    points.RemoveAttribute(_DOUBTED)
    points.SetNodeReferenceID(_IMAGE, image.GetID())
    points.SetAndObserveTransformNodeID(image.GetTransformNodeID())
    if shown_ras_mm is not None:
        for number, position in enumerate(shown_ras_mm.tolist()):
            points.SetNthControlPointPositionWorld(number, position)


def follow(image: slicer.vtkMRMLVolumeNode) -> None:
    """Put all lists that move with an image under the image's transform."""
    lists = image.GetScene().GetNodesByClass("vtkMRMLMarkupsNode")
    lists.UnRegister(None)  # the collection is a new one, which VTK's Python would otherwise leak
    for n in range(lists.GetNumberOfItems()):
        points = lists.GetItemAsObject(n)
        if points.GetNodeReference(_IMAGE) is image:
            points.SetAndObserveTransformNodeID(image.GetTransformNodeID())


def _world(points: slicer.vtkMRMLMarkupsNode) -> np.ndarray:
    """(n, 3) RAS mm as the views show them."""
    count = points.GetNumberOfControlPoints()
    return np.array([points.GetNthControlPointPositionWorld(n) for n in range(count)], float).reshape(-1, 3)
