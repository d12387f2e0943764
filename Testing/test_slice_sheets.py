"""Pictures of the documentation show the patient's sides where their letters say."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

slicer = pytest.importorskip("slicer", reason="needs slicer-core (pip install mrtrus[slicer])")

from offscreen import OffscreenApplication, SliceViews  # noqa: E402
from PIL import Image  # noqa: E402
from slice_sheets import _BAR_PX, _GAP_PX, save_small, sheet, side_of  # noqa: E402

from MRTRUSRegistrationLib.mrml.colors import DISPLACEMENT  # noqa: E402
from MRTRUSRegistrationLib.mrml.review import set_layers  # noqa: E402
from MRTRUSRegistrationLib.mrml.scene_file import new_scene, quiet_vtk  # noqa: E402
from MRTRUSRegistrationLib.mrml.volumes import add_volume  # noqa: E402

SIZE = 120


def bright_left_anterior_superior() -> sitk.Image:
    """LPS axes: +x is the patient's left, -y the front, +z the head."""
    axis = np.arange(41) - 20
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    image = sitk.GetImageFromArray(((x > 3) & (y < -3) & (z > 3)).astype(np.float32) * 100)
    image.SetOrigin((-20.0, -20.0, -20.0))
    return image


def test_letters_and_picture_agree(tmp_path):
    with quiet_vtk():
        application = OffscreenApplication(new_scene())
        views = SliceViews(application, size=SIZE)
        volume = add_volume(application.scene, bright_left_anterior_superior(), "block")
        set_layers(application.scene, volume, None, 0.0)
        # Patient left, front and head, in RAS.
        views.centre_on(np.array([-6.0, 6.0, 6.0]), field_of_view_mm=60.0)
        sides = {name: [side_of(_axis(view.node, n)) for n in (0, 1)] for name, view in views.views.items()}
        assert sides == {"Red": ["L", "A"], "Yellow": ["P", "S"], "Green": ["L", "S"]}
        picture = sheet(views, "A block", scale=DISPLACEMENT)
    save_small(picture, tmp_path / "new" / "sheet.png")
    with Image.open(tmp_path / "new" / "sheet.png") as read:
        assert read.size == (3 * SIZE + 2 * _GAP_PX, SIZE + _BAR_PX)
        panes = np.asarray(read.convert("L"))[:SIZE]
    starts = [n * (SIZE + _GAP_PX) for n in range(3)]
    # Around the middle, the block fills the quarter towards the sides above: in the sagittal plane the left.
    for start, right in zip(starts, (1, -1, 1), strict=True):
        middle = panes[20:100, start + 20 : start + 100].astype(float)
        columns, rows = middle.mean(axis=0)[::right], middle.mean(axis=1)
        assert columns[40:].mean() > columns[:40].mean() + 20
        assert rows[:40].mean() > rows[40:].mean() + 20


def _axis(slice_node, number: int) -> np.ndarray:
    matrix = slice_node.GetSliceToRAS()
    return np.array([matrix.GetElement(row, number) for row in range(3)])
