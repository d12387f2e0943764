"""Colour scales of the overlays: millimetres from dark to bright, the Jacobian determinant about one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer

# Told apart with any kind of colour vision and in grey: purple through green to yellow (viridis, as in the
# report; nowhere grey, so that it stands out from the images below it), and blue through white to red.
_DARK_TO_BRIGHT = (
    (0.27, 0.0, 0.33),
    (0.23, 0.32, 0.55),
    (0.13, 0.57, 0.55),
    (0.36, 0.79, 0.39),
    (0.99, 0.91, 0.14),
)
_ABOUT_ONE = (
    (0.02, 0.19, 0.58),
    (0.45, 0.68, 0.90),
    (0.97, 0.97, 0.97),
    (0.96, 0.55, 0.40),
    (0.60, 0.0, 0.09),
)
_FOLD = (1.0, 0.0, 1.0)
_ENTRIES = 256


@dataclass(frozen=True)
class ColorScale:
    """A scale by name: its `title` for a legend, the values at its ends and their unit."""

    name: str
    title: str
    low: float
    high: float
    unit: str
    anchors: tuple[tuple[float, float, float], ...]
    fold: bool = False

    def colors(self) -> np.ndarray:
        """(256, 3) red, green and blue from 0 to 1, from `low` to `high`."""
        at = np.linspace(0, 1, len(self.anchors))
        steps = np.linspace(0, 1, _ENTRIES)
        table = np.stack([np.interp(steps, at, channel) for channel in np.transpose(self.anchors)], axis=1)
        if self.fold:
            table[0] = _FOLD
        return table


DISPLACEMENT = ColorScale("MRTRUS displacement", "Displacement", 0.0, 8.0, "mm", _DARK_TO_BRIGHT)
CONFIDENCE = ColorScale("MRTRUS uncertainty", "Uncertainty", 0.0, 3.0, "mm", _DARK_TO_BRIGHT)
# A determinant of 0 or less is a fold, and has a colour that nothing else has.
JACOBIAN = ColorScale(
    "MRTRUS Jacobian", "Jacobian (MR volume / TRUS volume)", 0.0, 2.0, "", _ABOUT_ONE, fold=True
)


def color_node(scene: slicer.vtkMRMLScene, scale: ColorScale) -> slicer.vtkMRMLColorTableNode:
    """The colour table of a scale, made when the scene has none."""
    nodes = scene.GetNodesByClassByName("vtkMRMLColorTableNode", scale.name)
    nodes.UnRegister(None)
    if nodes.GetNumberOfItems():
        return nodes.GetItemAsObject(0)
    node = scene.AddNewNodeByClass("vtkMRMLColorTableNode", scale.name)
    node.SetTypeToUser()
    node.SetNumberOfColors(_ENTRIES)
    for number, color in enumerate(scale.colors().tolist()):
        node.SetColor(number, f"{scale.low + number / (_ENTRIES - 1) * (scale.high - scale.low):.2f}", *color)
    node.GetLookupTable().SetRange(scale.low, scale.high)
    return node


def show_colors(volume: slicer.vtkMRMLScalarVolumeNode, scale: ColorScale, *, lowest_shown: float) -> None:
    """Show a volume on a colour scale; voxels below `lowest_shown` are transparent."""
    display = volume.GetDisplayNode()
    display.SetAndObserveColorNodeID(color_node(volume.GetScene(), scale).GetID())
    display.AutoWindowLevelOff()
    display.SetWindowLevel(scale.high - scale.low, (scale.high + scale.low) / 2)
    display.AutoThresholdOff()
    display.SetThreshold(lowest_shown, 1e6)
    display.ApplyThresholdOn()
    # Between a voxel and one that is left out there is nothing to interpolate.
    display.InterpolateOff()
