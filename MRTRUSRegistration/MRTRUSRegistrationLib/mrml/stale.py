"""Whether a gland was edited after a result was made from it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from .case_nodes import CaseNodes

_ATTRIBUTE = {"MR": "MRGlandSha1", "TRUS": "TRUSGlandSha1"}


def remember_glands(case: CaseNodes) -> None:
    """Note in the case what its glands look like, right after it was made."""
    for image, attribute in _ATTRIBUTE.items():
        case.set_attribute(attribute, _fingerprint(case, image))


def glands_remembered(case: CaseNodes) -> bool:
    """Whether the case says what its glands looked like when it was made."""
    return all(case.attribute(attribute) for attribute in _ATTRIBUTE.values())


class GlandWatch:
    """Compares glands with what was noted; a gland is read again only after its voxels changed."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[int, ...], str]] = {}

    def edited(self, case: CaseNodes) -> tuple[str, ...]:
        """The images (MR, TRUS) whose gland is another than the one the result was made from."""
        changed = []
        for image, attribute in _ATTRIBUTE.items():
            noted = case.attribute(attribute)
            if noted and self._now(case, image) not in ("", noted):
                changed.append(image)
        return tuple(changed)

    def _now(self, case: CaseNodes, image: str) -> str:
        from .readers import times_drawn

        gland, _volume = _nodes(case, image)
        if gland is None:
            return ""
        state, key = times_drawn(gland), gland.GetID()
        if self._known.get(key, ((), ""))[0] != state:
            self._known[key] = (state, _fingerprint(case, image))
        return self._known[key][1]


def _nodes(case: CaseNodes, image: str) -> tuple[Any, Any]:
    return (case.mr_gland, case.mr) if image == "MR" else (case.trus_gland, case.trus)


def _fingerprint(case: CaseNodes, image: str) -> str:
    """A checksum of the voxels; "" where the gland or its image is gone or empty."""
    import SimpleITK as sitk  # noqa: N813

    from .readers import gland_mask_of, volume_grid

    gland, volume = _nodes(case, image)
    if gland is None or volume is None or volume.GetImageData() is None:
        return ""
    try:
        mask = gland_mask_of(gland, volume_grid(volume), image)
    except InputError:
        return ""
    return hashlib.sha1(sitk.GetArrayFromImage(mask).tobytes(), usedforsecurity=False).hexdigest()
