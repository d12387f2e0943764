"""What `job.run_job` does; apart from it, because reading and registering images needs heavy packages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813

from .confidence import ConfidenceMap, ConfidenceSettings, confidence_map
from .errors import InputError, RegistrationError
from .images import LoadedImage, check_different, read_image
from .input_transform import read_transform
from .job import Job
from .landmark_correction import pair_warnings
from .landmark_files import Frame, NamedPoints, read_points
from .landmarks import pair_landmarks, read_landmarks
from .masks import check_same_patient, read_mask
from .models import find_model, resolve_device
from .outputs import Extras, check_output, write_result
from .pipeline import Settings, register
from .progress import CancelToken, ProgressCallback, Reporter
from .results import Landmarks, QualityWarning, Registration
from .rigid import RigidSettings, as_rigid
from .seeds import check_seed
from .target_files import read_targets
from .targets import Target, TargetRow, TrusGland, carry_targets

_RECORDED = (
    *("mr", "trus", "mr_mask", "trus_mask", "mr_landmarks", "trus_landmarks"),
    *("rigid", "rigid_points", "targets", "lesions"),
)


def run(
    job: Job, *, progress: ProgressCallback | None = None, cancel: CancelToken | None = None
) -> Registration:
    """See `job.run_job`."""
    check_output(job.output, overwrite=job.overwrite, inputs=(job.mr, job.trus))
    settings = settings_of(job)
    given = _read(job)
    mr, trus = given.mr, given.trus
    result = register(
        mr.image,
        trus.image,
        settings=settings,
        mr_gland=given.masks[0],
        trus_gland=given.masks[1],
        rigid=given.rigid,
        mr_landmarks=given.landmarks.mr,
        trus_landmarks=given.landmarks.trus,
        mr_orientation_known=mr.orientation_known,
        trus_orientation_known=trus.orientation_known,
        warnings=(*mr.warnings, *trus.warnings, *given.landmarks.warnings),
        progress=progress,
        cancel=cancel,
    )
    result = replace(result, warnings=(*result.warnings, *_pair_warnings(given, result)))
    reporter = Reporter(progress, cancel)
    result, extras = _with_extras(job, result, given.targets, reporter)
    write_result(
        result,
        job.output,
        case_name=job.case_name or job.output.absolute().name,
        inputs={name: str(path) for name, path in job.input_files.items() if name in _RECORDED},
        reporter=reporter,
        with_trus=trus.relabelled,
        extras=extras,
    )
    return result


def settings_of(job: Job) -> Settings:
    """The pipeline's settings; `InputError` for those that are not possible."""
    rigid = RigidSettings()
    metric = rigid.metric if job.rigid_metric is None else job.rigid_metric
    max_rotation_deg = rigid.max_rotation_deg if job.max_rotation_deg is None else job.max_rotation_deg
    if metric not in ("mattes", "meansquares"):
        raise InputError(f"The rigid metric {metric!r} is not known; use mattes or meansquares.")
    if not 0 <= max_rotation_deg <= 180:
        raise InputError(f"The limit of rotation {max_rotation_deg:g}° is not between 0 and 180.")
    check_seed(job.seed)
    if job.confidence:
        # It says itself which numbers are possible.
        ConfidenceSettings(perturbations=job.confidence)
    return Settings(
        method=job.method,
        initial=_initial(job.initial),
        models=job.models,
        device=job.device,
        seed=job.seed,
        rigid=replace(rigid, metric=metric, max_rotation_deg=max_rotation_deg),  # type: ignore[arg-type]
    )


def _initial(initial: str) -> Literal["gland", "world"] | sitk.Transform:
    if initial == "gland" or initial == "world":
        return initial
    if not Path(initial).exists():
        raise InputError(
            f"The initial position {initial} is neither gland nor world, nor a transform file that exists."
        )
    return _read_rigid(Path(initial))


def _read_rigid(path: Path) -> sitk.Euler3DTransform:
    transform = read_transform(path)
    try:
        return as_rigid(transform, np.zeros(3))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


@dataclass(frozen=True)
class _GivenLandmarks:
    mr: Landmarks | None = None
    trus: Landmarks | None = None
    warnings: tuple[QualityWarning, ...] = ()


@dataclass(frozen=True)
class _Given:
    """What the files of a job hold."""

    mr: LoadedImage
    trus: LoadedImage
    masks: tuple[sitk.Image | None, sitk.Image | None]
    landmarks: _GivenLandmarks
    rigid: sitk.Euler3DTransform | None
    rigid_points: NamedPoints | None
    targets: tuple[Target, ...]


def _read(job: Job) -> _Given:
    rigid = None if job.rigid is None else _read_rigid(job.rigid)
    points = None if job.rigid_points is None else read_points(job.rigid_points, frame=_frame(job))
    mr = read_image(job.mr, role="MR", orientation=job.mr_orientation)
    trus = read_image(job.trus, role="TRUS", orientation=job.trus_orientation)
    check_different(mr, trus)
    masks, landmarks = _read_masks(job, mr, trus), _read_landmarks(job, mr, trus)
    return _Given(mr, trus, masks, landmarks, rigid, points, _read_targets(job, mr))


def _read_targets(job: Job, mr: LoadedImage) -> tuple[Target, ...]:
    """Those of both files; one of the lesions that is called like a target gets another name."""
    frame = _frame(job)
    targets = () if job.targets is None else read_targets(job.targets, mr, frame=frame)
    lesions = () if job.lesions is None else read_targets(job.lesions, mr, frame=frame)
    taken = {target.name for target in targets}
    named = [
        replace(lesion, name=f"{lesion.name} (lesion)") if lesion.name in taken else lesion
        for lesion in lesions
    ]
    return (*targets, *named)


def _pair_warnings(given: _Given, result: Registration) -> tuple[QualityWarning, ...]:
    """About the landmark pairs that the rigid alignment was fitted to, if it was."""
    points = given.rigid_points
    return () if points is None else pair_warnings(points.points_mm, result.trus_gland.mask)


def _with_extras(
    job: Job, result: Registration, targets: tuple[Target, ...], reporter: Reporter
) -> tuple[Registration, Extras]:
    """The confidence map and the targets in the TRUS. One that fails warns: the registration stands."""
    confidence: ConfidenceMap | None = None
    rows: tuple[TargetRow, ...] = ()
    warnings = result.warnings
    try:
        confidence = _confidence(job, result, reporter)
    except RegistrationError as error:
        warnings += (QualityWarning("confidence_failed", f"There is no confidence map: {error}"),)
    if job.confidence and (result.deformation is None or result.deformation.model is None):
        message = f"The method {result.method} has no network to repeat, so there is no confidence map."
        warnings += (QualityWarning("confidence_unavailable", message),)
    try:
        rows = _targets(result, targets, confidence)
    except RegistrationError as error:
        warnings += (QualityWarning("targets_failed", f"The targets were not carried to the TRUS: {error}"),)
    return replace(result, warnings=warnings), Extras(confidence, rows)


def _targets(
    result: Registration, targets: tuple[Target, ...], confidence: ConfidenceMap | None
) -> tuple[TargetRow, ...]:
    if not targets:
        return ()
    deformation = None if result.deformation is None else result.deformation.transform
    return carry_targets(
        targets,
        result.rigid.transform,
        deformation,
        TrusGland.of(result.trus_gland),
        confidence=None if confidence is None else confidence.image,
    )


def _confidence(job: Job, result: Registration, reporter: Reporter) -> ConfidenceMap | None:
    deformation = result.deformation
    if not job.confidence or deformation is None or deformation.model is None:
        return None
    return confidence_map(
        result.mr,
        result.trus,
        result.mr_gland.mask,
        result.trus_gland.mask,
        result.rigid.transform,
        find_model(task="registration", modality="MR-TRUS", name=deformation.model, extra=job.models),
        reference=deformation,
        settings=ConfidenceSettings(perturbations=job.confidence, seed=job.seed),
        axes=result.trus_gland.axes,
        mr_axes=result.mr_gland.axes,
        device=resolve_device(job.device),
        reporter=reporter,
    )


def _read_masks(job: Job, mr: LoadedImage, trus: LoadedImage) -> tuple[sitk.Image | None, sitk.Image | None]:
    masks = (
        None if job.mr_mask is None else read_mask(job.mr_mask, mr),
        None if job.trus_mask is None else read_mask(job.trus_mask, trus),
    )
    if job.mr_mask is not None and job.trus_mask is not None:
        # The pipeline compares them again, but does not know the names of the files.
        check_same_patient(masks[0], masks[1], job.mr_mask.name, job.trus_mask.name)
    return masks


def _read_landmarks(job: Job, mr: LoadedImage, trus: LoadedImage) -> _GivenLandmarks:
    if job.mr_landmarks is None and job.trus_landmarks is None:
        return _GivenLandmarks()
    if job.mr_landmarks is None or job.trus_landmarks is None:
        raise InputError("Landmarks need both --mr-landmarks and --trus-landmarks, for they are compared.")
    frame = _frame(job)
    pairs = pair_landmarks(
        read_landmarks(job.mr_landmarks, mr, frame=frame),
        read_landmarks(job.trus_landmarks, trus, frame=frame),
        job.mr_landmarks.name,
        job.trus_landmarks.name,
    )
    return _GivenLandmarks(pairs.mr, pairs.trus, pairs.warnings)


def _frame(job: Job) -> Frame | None:
    frame = job.landmark_frame
    if frame is None or frame == "LPS" or frame == "RAS":
        return frame  # type: ignore[return-value]
    raise InputError(f"The frame {frame!r} is not known; give LPS or RAS.")
