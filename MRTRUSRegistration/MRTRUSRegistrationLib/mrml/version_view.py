"""Two versions of a case in the slice views at once: the registered MR of one over that of the other."""

from __future__ import annotations

import SimpleITK as sitk  # noqa: N813
import slicer

from ..errors import InputError
from .case_nodes import CaseNodes
from .comparison import RegisteredImages, copy_window, show_volume
from .hierarchy import remove_node
from .review import composites_of, set_layers
from .stages import accepted_stage

_ROLE = "versionMR"


class VersionView:
    """Shows two versions, each as the stage that counts for it registers the MR; neither is changed.

    `InputError` for versions that are the same or lie on different TRUS volumes, and where an image is gone.
    """

    def __init__(self, first: CaseNodes, second: CaseNodes) -> None:
        if first.node is second.node:
            raise InputError("The same version is chosen twice: choose two different ones.")
        if first.trus is not second.trus:
            raise InputError(
                "The two versions lie on different TRUS volumes, so they cannot be laid together."
            )
        self._cases = (first, second)
        # Both images first: what fails should leave no volume behind.
        images = [_registered(case) for case in self._cases]
        self._volumes = [_volume(*pair) for pair in zip(self._cases, images, strict=True)]

    @property
    def shown(self) -> bool:
        """Whether the slice views still show what `show` put there."""
        first, second = (volume.GetID() for volume in self._volumes)
        layers = [
            (view.GetBackgroundVolumeID(), view.GetForegroundVolumeID())
            for view in composites_of(self._scene)
        ]
        return all(case.present for case in self._cases) and all(pair == (first, second) for pair in layers)

    def show(self, share: float) -> None:
        """Show the first version under the second with that opacity (0 to 1)."""
        first, second = self._volumes
        set_layers(self._scene, first, second, share)

    def stop(self) -> None:
        """Remove what was made; the views are the caller's to fill again."""
        for volume in self._volumes:
            if volume.GetScene() is not None:
                remove_node(volume)

    @property
    def _scene(self) -> slicer.vtkMRMLScene:
        return self._cases[0].scene


def _registered(case: CaseNodes) -> sitk.Image:
    images = RegisteredImages(case)
    return images.grid().image(images.mr(accepted_stage(case)))


def _volume(case: CaseNodes, image: sitk.Image) -> slicer.vtkMRMLScalarVolumeNode:
    node = show_volume(case, _ROLE, image, f"Registered MR of version {case.version}")
    copy_window(case.mr, node)
    return node
