"""Landmarks as point lists."""

from __future__ import annotations

import slicer

from ..results import Landmarks
from .frames import points_ras


def add_landmarks(
    scene: slicer.vtkMRMLScene,
    landmarks: Landmarks,
    name: str,
    *,
    color: tuple[float, float, float],
) -> slicer.vtkMRMLMarkupsFiducialNode:
    """Add a locked point list with the landmarks' names; the points are given in LPS mm."""
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name)
    node.CreateDefaultDisplayNodes()
    for label, point in zip(landmarks.names, points_ras(landmarks.points_mm).tolist(), strict=True):
        node.AddControlPoint(point, label)
    display = node.GetDisplayNode()
    display.SetSelectedColor(color)
    display.SetColor(color)
    # Locked: these are what was measured, and a stray drag must not change them.
    node.SetLocked(True)
    return node
