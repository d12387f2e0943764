"""Paper B's augmentation: random rotation, translation and scaling. Ranges are unstated; these are ours."""

from __future__ import annotations

from ..data.augmentation import SpatialRange

AUGMENTATION = SpatialRange(rotation_deg=10.0, log_scale=0.1, shear=0.0, translation_vox=5.0, elastic_vox=0.0)
