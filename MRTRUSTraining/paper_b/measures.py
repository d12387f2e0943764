"""Paper B's measures: five of a segmentation, three of a registration.

Its text names them; the equations are lost. DSC and HD95 are those of this project, accuracy, precision and
recall the usual ones over voxels, and TRE is read as the mean distance of paired points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813

from MRTRUSRegistrationLib.measures import dsc, hd95_mm


@dataclass(frozen=True)
class SegmentationFigures:
    """Of a predicted against a reference mask. Accuracy depends on how much background the grid holds."""

    dsc: float
    accuracy: float
    precision: float
    recall: float
    hd95_mm: float


@dataclass(frozen=True)
class RegistrationFigures:
    """Of the moved gland and points of the MR against those of the TRUS."""

    dsc: float
    hd95_mm: float
    tre_mm: float


def segmentation_figures(predicted: sitk.Image, reference: sitk.Image) -> SegmentationFigures:
    """The five figures of two binary masks on one grid, over all its voxels.

    Precision is nan for an empty prediction, recall for an empty reference; `ValueError` if the grids differ.
    """
    overlap, distance_mm = dsc(predicted, reference), hd95_mm(predicted, reference)
    said, true = (sitk.GetArrayViewFromImage(mask) > 0 for mask in (predicted, reference))
    hits = int(np.count_nonzero(said & true))
    return SegmentationFigures(
        overlap, float(np.mean(said == true)), _share(hits, said), _share(hits, true), distance_mm
    )


def registration_figures(
    moved_gland: sitk.Image, trus_gland: sitk.Image, moved_mm: np.ndarray, trus_mm: np.ndarray
) -> RegistrationFigures:
    """The three figures of two binary masks on one grid and two (n, 3) arrays of paired points in LPS mm.

    TRE is nan without points; `ValueError` if grids or numbers of points differ.
    """
    moved, fixed = (np.asarray(points, float).reshape(-1, 3) for points in (moved_mm, trus_mm))
    if len(moved) != len(fixed):
        raise ValueError("The points must come in pairs.")
    distances_mm = np.linalg.norm(moved - fixed, axis=1)
    tre_mm = float(distances_mm.mean()) if len(distances_mm) else float("nan")
    return RegistrationFigures(dsc(moved_gland, trus_gland), hd95_mm(moved_gland, trus_gland), tre_mm)


def _share(hits: int, mask: np.ndarray) -> float:
    total = int(np.count_nonzero(mask))
    return hits / total if total else float("nan")
