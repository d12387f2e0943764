"""What can be wrong with one case of a data set, found without stopping at the first thing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import Grid
from MRTRUSRegistrationLib.images import Role, read_image
from MRTRUSRegistrationLib.masks import check_same_patient
from MRTRUSRegistrationLib.volume_files import readable

from .case_files import Case
from .cases import load_case
from .unpaired import UNPAIRED, unpaired_sentence

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """Something wrong: an error stops a training or falsifies a figure, a warning wants a look.

    `code` is stable; `cases` names the cases concerned; `message` is one sentence.
    """

    severity: Severity
    code: str
    cases: tuple[str, ...]
    message: str


@dataclass(frozen=True)
class SideFacts:
    """One modality of a case: the image and its label channels (channel, k, j, i), as far as readable."""

    image: sitk.Image | None = None
    labels: np.ndarray | None = None
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class CaseFacts:
    """Both sides of a case, and what is wrong with it."""

    case: Case
    mr: SideFacts
    trus: SideFacts
    findings: tuple[Finding, ...] = field(default=())


def inspect_case(case: Case) -> CaseFacts:
    """Read a case whose files exist and list what is wrong with its files and labels."""
    mr = _inspect_side(case, case.mr_path, case.mr_labels_path, "MR")
    trus = _inspect_side(case, case.trus_path, case.trus_labels_path, "TRUS")
    findings = [*mr.findings, *trus.findings]
    if mr.labels is not None and trus.labels is not None:
        findings += _channel_findings(case, mr.labels, trus.labels)
        findings += _volume_findings(case, mr, trus)
    if not any(finding.severity == "error" for finding in findings):
        findings += _loading_findings(case)
    return CaseFacts(case, mr, trus, tuple(findings))


def _inspect_side(case: Case, image_path: Path, labels_path: Path, role: Role) -> SideFacts:
    orientation = case.mr_orientation if role == "MR" else case.trus_orientation
    findings: list[Finding] = []
    image = labels = None
    try:
        loaded = read_image(image_path, role=role, orientation=orientation)
        image = loaded.image
        with readable(labels_path):
            labels = sitk.ReadImage(str(labels_path))
    except InputError as error:
        findings.append(Finding("error", "unreadable", (case.name,), str(error)))
    if image is None or labels is None:
        return SideFacts(image, None, tuple(findings))
    array = sitk.GetArrayFromImage(labels)
    channels = array[None] if array.ndim == 3 else array
    findings += _label_findings(case, channels, labels_path)
    if channels.shape[1:] != image.GetSize()[::-1]:
        findings.append(_size_finding(case, labels_path, channels, image))
        return SideFacts(image, None, tuple(findings))
    if not _grid_of(labels).same_as(loaded.file_grid, tolerance_mm=0.1):
        message = f"{labels_path} has another position or spacing than its image; its voxels are taken."
        findings.append(Finding("warning", "label_geometry", (case.name,), message))
    return SideFacts(image, channels > 0.5, tuple(findings))


def _grid_of(labels: sitk.Image) -> Grid:
    """The first three axes of a 3-D or 4-D label file."""
    n = labels.GetDimension()
    direction = np.reshape(labels.GetDirection(), (n, n))[:3, :3].ravel()
    size, spacing, origin = labels.GetSize()[:3], labels.GetSpacing()[:3], labels.GetOrigin()[:3]
    return Grid(size, spacing, origin, tuple(direction.tolist()))


def _size_finding(case: Case, path: Path, channels: np.ndarray, image: sitk.Image) -> Finding:
    labels, voxels = (" × ".join(str(n) for n in size) for size in (channels.shape[:0:-1], image.GetSize()))
    message = f"{path} has {labels} voxels but its image {voxels}; draw the labels on that image."
    return Finding("error", "label_size", (case.name,), message)


def _label_findings(case: Case, channels: np.ndarray, path: Path) -> list[Finding]:
    """Channels must be binary: values between would be rounded, a label map would be one gland."""
    if not np.isfinite(channels).all():
        message = f"{path} holds voxels that are not finite numbers; write the labels again."
        return [Finding("error", "label_values", (case.name,), message)]
    if np.isin(channels, (0, 1)).all():
        return []
    message = f"{path} holds values other than 0 and 1 (up to {channels.max():g}); give a channel a label."
    return [Finding("warning", "label_values", (case.name,), message)]


def _channel_findings(case: Case, mr: np.ndarray, trus: np.ndarray) -> list[Finding]:
    if len(mr) != len(trus):
        message = f"Case {case.name} has {len(mr)} label channels in MR but {len(trus)} in TRUS."
        return [Finding("error", "channel_count", (case.name,), message)]
    findings = []
    for side, labels in (("MR", mr), ("TRUS", trus)):
        if not labels[0].any():
            message = f"Case {case.name} has an empty gland label (channel 0) in {side}."
            findings.append(Finding("error", "empty_gland", (case.name,), message))
    for channel in range(1, len(mr)):
        in_mr, in_trus = bool(mr[channel].any()), bool(trus[channel].any())
        if in_mr != in_trus:
            message = unpaired_sentence(case.name, channel, in_mr=in_mr)
            findings.append(Finding("warning", UNPAIRED, (case.name,), message))
    return findings


def _volume_findings(case: Case, mr: SideFacts, trus: SideFacts) -> list[Finding]:
    """Glands of very different volume belong to different patients or are not whole."""
    masks = [_gland(side) for side in (mr, trus)]
    if masks[0] is None or masks[1] is None:
        return []
    names = f"the MR of case {case.name}", f"the TRUS of case {case.name}"
    try:
        warnings = check_same_patient(masks[0], masks[1], *names)
    except InputError as error:
        return [Finding("error", "gland_volume", (case.name,), str(error))]
    return [Finding("warning", "gland_volume", (case.name,), warning.message) for warning in warnings]


def _gland(side: SideFacts) -> sitk.Image | None:
    if side.image is None or side.labels is None or not side.labels[0].any():
        return None
    return Grid.of(side.image).image(side.labels[0].astype(np.uint8))


def _loading_findings(case: Case) -> list[Finding]:
    """What only loading shows: points that do not pair, a transform that cannot be read."""
    if case.mr_landmarks_path is None and case.truth_path is None:
        return []
    try:
        load_case(case)
    except InputError as error:
        return [Finding("error", "unreadable", (case.name,), str(error))]
    return []
