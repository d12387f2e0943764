"""What the stages hand to each other: small frozen results.

Frame: LPS, millimetres. Transforms map points of the fixed (TRUS) space to the moving (MR) space.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk  # noqa: N813


@dataclass(frozen=True)
class QualityWarning:
    """A reason not to trust a result blindly: a stable `code` and one sentence for the reader."""

    code: str
    message: str


@dataclass(frozen=True)
class Landmarks:
    """Corresponding structures of one image.

    `points_mm` is (n, 3), LPS: the points themselves, or the centroids of `labels` where the landmarks were
    given as label volumes (binary, one image a landmark, on any grid).
    """

    names: tuple[str, ...]
    points_mm: np.ndarray
    labels: tuple[sitk.Image, ...] = ()

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class GlandSegmentation:
    """The gland of one image on that image's own grid; `probability` only where a model made it.

    `axes` says how the image's index axes lie in the patient where the header does not ("" where it does).
    """

    mask: sitk.Image
    probability: sitk.Image | None = None
    model: str | None = None
    axes: str = ""
    warnings: tuple[QualityWarning, ...] = ()


@dataclass(frozen=True)
class RigidAlignment:
    """The rigid part of a registration, TRUS points to MR points.

    `rotation_deg` says how far it turns the MR beyond the start of the registration, whatever rotation that
    has: 0 for a method that only moves it.
    """

    transform: sitk.Euler3DTransform
    method: str
    rotation_deg: float
    warnings: tuple[QualityWarning, ...] = ()


@dataclass(frozen=True)
class Deformation:
    """The deformable part: a displacement field transform in TRUS space, applied before the rigid one.

    A TRUS point x corresponds to the MR point `rigid(x + u(x))`. The field's grid ends with a rim of zeros.
    `own_folds_percent` is the percentage of the TRUS gland's voxels that folded before the field was smoothed
    where it folds. `alignment` is that rigid transform where the network found it, in place of `start`, which
    it was given.
    """

    transform: sitk.DisplacementFieldTransform
    method: str
    model: str | None = None
    warnings: tuple[QualityWarning, ...] = ()
    own_folds_percent: float = 0.0
    alignment: RigidAlignment | None = None
    start: sitk.Transform | None = None


@dataclass(frozen=True)
class Measures:
    """Quality figures of one registration; a figure that cannot be computed is absent."""

    values: dict[str, float] = field(default_factory=dict)
    landmark_rows: tuple[LandmarkRow, ...] = ()


@dataclass(frozen=True)
class LandmarkRow:
    """One landmark before and after: positions are LPS mm in TRUS space; `lost` when the warp lost it."""

    name: str
    fixed_mm: tuple[float, float, float]
    warped_mm: tuple[float, float, float] | None
    initial_error_mm: float
    rigid_error_mm: float | None
    error_mm: float | None
    lost: bool


@dataclass(frozen=True)
class Registration:
    """Everything that one run made; images marked `registered` lie on the TRUS grid."""

    mr: sitk.Image
    trus: sitk.Image
    mr_gland: GlandSegmentation
    trus_gland: GlandSegmentation
    initial: sitk.Transform
    rigid: RigidAlignment
    deformation: Deformation | None
    transform: sitk.Transform
    registered_mr: sitk.Image
    registered_mr_mask: sitk.Image
    mr_landmarks: Landmarks | None
    trus_landmarks: Landmarks | None
    measures: Measures
    initial_measures: Measures
    rigid_measures: Measures
    warnings: tuple[QualityWarning, ...]
    timings_s: dict[str, float]
    method: str
    provenance: dict[str, object]
