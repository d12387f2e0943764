"""The result folder of one case, written beside its target and moved into place when complete."""

from __future__ import annotations

import errno
import gzip
import json
import math
import os
import shutil
import tempfile
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import SimpleITK as sitk  # noqa: N813

from . import target_files
from .confidence import ConfidenceMap
from .errors import Cancelled, InputError
from .indicator import registration_indicator
from .progress import Reporter
from .report import write_report
from .results import Measures, QualityWarning, Registration
from .targets import TargetRow

RESULT_FORMAT = 1
NOTICE = "Research use only: not a medical device."
FILES = (
    "result.json",
    "report.html",
    "registered_mr.nii.gz",
    "mr_mask.nii.gz",
    "trus_mask.nii.gz",
    "registered_mr_mask.nii.gz",
    "mr_to_trus.h5",
    "rigid.h5",
    "initial.h5",
    "scene.mrb",
)
_CONFIDENCE = "confidence_mm.nii.gz"
_OPTIONAL_FILES = (
    *("trus.nii.gz", "mr_probability.nii.gz", "trus_probability.nii.gz"),
    *(_CONFIDENCE, target_files.TABLE, target_files.POINTS, target_files.SEGMENTS),
)
# What file managers leave in any folder that they show.
SYSTEM_FILES = (".DS_Store", "Thumbs.db", "desktop.ini")
_SPACE_BYTES = 200_000_000
FULL_BYTES = 1_000_000


@dataclass(frozen=True)
class Extras:
    """What a run was asked for besides the registration."""

    confidence: ConfidenceMap | None = None
    targets: tuple[TargetRow, ...] = ()


def check_output(folder: Path, *, overwrite: bool, inputs: Sequence[Path] = ()) -> None:
    """`InputError` unless a result can be written to `folder` (before anything is computed).

    What a killed run left behind is put right first. None of `inputs` may lie in the folder, because the
    result replaces it as a whole.
    """
    target = folder.resolve()
    put_right(target)
    if target.exists() and not target.is_dir():
        raise InputError(f"The output {folder} is a file; give a folder.")
    check_inputs_outside(folder, inputs)
    if target.is_dir():
        _check_replaceable(folder, target, overwrite)
    _check_writable(target)


def check_inputs_outside(folder: Path, inputs: Sequence[Path]) -> None:
    """`InputError` if an input lies in the output folder, itself or as a link."""
    target = folder.resolve()
    for path in inputs:
        if path.resolve().is_relative_to(target) or path.parent.resolve().is_relative_to(target):
            raise InputError(
                f"{path} lies in the output folder, which the result replaces; give another folder."
            )


def _check_replaceable(folder: Path, target: Path, overwrite: bool) -> None:
    names = {path.name for path in target.iterdir()}.difference(SYSTEM_FILES)
    if names and not overwrite:
        raise InputError(
            f"The output folder {folder} is not empty; give --overwrite to replace the result in it."
        )
    # Without result.json nothing says that files of these names are a result and not somebody's data.
    own = (*FILES, *_OPTIONAL_FILES) if "result.json" in names else ()
    foreign = sorted(names.difference(own))
    if foreign:
        raise InputError(
            f"The output folder {folder} holds files that are not from a registration ({foreign[0]}), so it "
            "is not replaced; give another folder."
        )
    if os.path.ismount(target) or Path.cwd().is_relative_to(target):
        raise InputError(
            f"The output folder {folder} is a mount point or the current folder and cannot be replaced; give "
            "a folder inside it."
        )


def _check_writable(target: Path) -> None:
    parent = next(path for path in target.parents if path.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.partial-", dir=parent):
            pass
    except OSError as error:
        raise InputError(
            f"The output folder {target} cannot be made ({error.strerror}); give another."
        ) from error
    if shutil.disk_usage(parent).free < _SPACE_BYTES:
        raise InputError(f"The disk of {parent} has less than 200 MB left; free some space or give another.")


@contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its place at the end, or vanishes on an error.

    A full disk, and whatever else the system says about writing, becomes an `InputError`.
    """
    target = folder.resolve()
    put_right(target)
    staging = target.parent / f".{target.name}.partial-{os.getpid()}"
    try:
        with full_disk_said(folder):
            staging.mkdir(parents=True)
            yield staging
            require_space(staging)
            _move_into_place(staging, target)
    except OSError as error:
        reason = error.strerror or "unknown reason"
        raise InputError(
            f"The result cannot be written to {folder} ({reason}); check the folder or give another."
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def full_disk_said(folder: Path) -> Iterator[None]:
    """Whatever fails because the disk of `folder` is full becomes an `InputError` that says so."""
    try:
        yield
    except (Cancelled, InputError):
        raise
    except Exception as error:
        # Libraries report a full disk as any other failure; the space that is left tells them apart.
        number = error.errno if isinstance(error, OSError) else None
        if number in (errno.ENOSPC, errno.EDQUOT) or _free_bytes(folder.resolve()) < FULL_BYTES:
            raise InputError(f"The disk of {folder} is full; free some space and run again.") from error
        raise


def _free_bytes(target: Path) -> int:
    return shutil.disk_usage(next(path for path in target.parents if path.exists())).free


def require_space(folder: Path, needed_bytes: int = FULL_BYTES) -> None:
    """`OSError` of a full disk unless that much is left: libraries fail noisily on one, or not at all."""
    if shutil.disk_usage(folder).free < needed_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _move_into_place(staging: Path, target: Path) -> None:
    """Swap the new result in; on an error or Ctrl+C in between, the old one goes back."""
    old = target.parent / f".{target.name}.old-{os.getpid()}"
    try:
        if target.exists():
            target.rename(old)
        staging.rename(target)
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(old, ignore_errors=True)


def write_text_atomically(text: str, path: Path) -> None:
    """Write a text file in UTF-8, as `write_bytes_atomically` does."""
    write_bytes_atomically(text.encode("utf-8"), path)


def write_bytes_atomically(content: bytes | memoryview, path: Path) -> None:
    """Write a file, complete or not at all; `OSError` names `path`.

    Several writers of one file do not meet before the end: the last of them wins, with all of its content.
    """
    staging = path.with_name(f".{path.name}.partial-{uuid.uuid4().hex}")
    try:
        staging.write_bytes(content)
        os.replace(staging, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        # A file that is locked, or a folder that is gone, is told by the error above.
        with suppress(OSError):
            staging.unlink(missing_ok=True)


def put_right(target: Path) -> None:
    """Remove staging folders of runs that are gone; put an old result back that a killed run had moved."""
    if not target.parent.is_dir():
        return
    leftovers = sorted(path for path in target.parent.iterdir() if path.name.startswith(f".{target.name}."))
    for path in leftovers:
        kind, _, pid = path.name.removeprefix(f".{target.name}.").partition("-")
        if kind not in ("partial", "old") or not pid.isdigit() or _running(int(pid)):
            continue
        if kind == "old" and not target.exists():
            path.rename(target)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _running(pid: int) -> bool:
    """Whether another process has this id; in containers an earlier run often had our own."""
    import psutil

    return pid != os.getpid() and psutil.pid_exists(pid)


def write_result(
    result: Registration,
    folder: Path,
    *,
    case_name: str,
    inputs: dict[str, str] | None = None,
    reporter: Reporter | None = None,
    with_trus: bool = False,
    extras: Extras | None = None,
) -> None:
    """Write every file of a result; `check_output` should have been asked before.

    `with_trus` adds the TRUS volume itself, for a run that re-labelled its axes. Without slicer-core the
    scene is left out, and result.json says so.
    """
    reporter, extras = reporter or Reporter(), extras or Extras()
    with staging_folder(folder) as staging:
        # Libraries fail noisily or not at all on a full disk, so that the room is looked at before each.
        needed = _needed_bytes(result)
        reporter.report("write", 0.0, "Images and transforms")
        require_space(staging, needed)
        _write_images(result, staging, with_trus)
        require_space(staging, needed)
        _write_transforms(result, staging)
        _write_extras(extras, staging)
        reporter.report("write", 0.4, "Slicer scene")
        require_space(staging, needed)
        scene_written = _write_scene(result, staging / "scene.mrb", case_name)
        reporter.report("write", 0.7, "Report")
        write_report(
            result,
            staging / "report.html",
            case_name=case_name,
            confidence=extras.confidence,
            targets=extras.targets,
        )
        content = result_json(
            result, case_name=case_name, inputs=inputs or {}, scene_written=scene_written, extras=extras
        )
        (staging / "result.json").write_text(
            json.dumps(_without_nan(content), indent=1, allow_nan=False) + "\n", encoding="utf-8"
        )
        reporter.report("write", 1.0)


def _needed_bytes(result: Registration) -> int:
    """Room for what is written, were nothing of it compressed; the scene is a folder before it is a file."""
    images = (result.mr, result.trus, result.registered_mr, result.mr_gland.mask, result.trus_gland.mask)
    total = sum(_bytes(image) for image in images)
    if result.deformation is not None:
        total += 2 * _bytes(result.deformation.transform.GetDisplacementField())
    return 2 * total + FULL_BYTES


def _bytes(image: sitk.Image) -> int:
    return image.GetNumberOfPixels() * image.GetNumberOfComponentsPerPixel() * image.GetSizeOfPixelComponent()


def _write_images(result: Registration, folder: Path, with_trus: bool) -> None:
    images = {
        "registered_mr": result.registered_mr,
        "mr_mask": result.mr_gland.mask,
        "trus_mask": result.trus_gland.mask,
        "registered_mr_mask": result.registered_mr_mask,
    }
    for name, segmentation in (("mr", result.mr_gland), ("trus", result.trus_gland)):
        if segmentation.probability is not None:
            images[f"{name}_probability"] = _in_percent(segmentation.probability)
    if with_trus:
        images["trus"] = result.trus
    for name, image in images.items():
        _write_checked(image, folder / f"{name}.nii.gz")


def _in_percent(probability: sitk.Image) -> sitk.Image:
    """Probability as whole percent: enough to judge by, and a tenth of the size."""
    return sitk.Cast(sitk.Round(probability * 100.0), sitk.sitkUInt8)


def _write_checked(image: sitk.Image, path: Path) -> None:
    """Write an image and read it back: ITK says nothing when the disk takes only a part of it."""
    length = _bytes(image)
    _write(partial(sitk.WriteImage, image, str(path), useCompression=True, compressionLevel=3))
    if _unpacked_bytes(path) < length:
        raise OSError(errno.EIO, "incomplete", str(path))


def _unpacked_bytes(path: Path) -> int:
    """Length of a gzipped file's content; 0 where it is damaged."""
    length = 0
    try:
        with gzip.open(path, "rb") as stream:
            while block := stream.read(1 << 22):
                length += len(block)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return 0
    return length


def _write_transforms(result: Registration, folder: Path) -> None:
    transforms = {
        "mr_to_trus": result.transform,
        "rigid": result.rigid.transform,
        "initial": result.initial,
    }
    for name, transform in transforms.items():
        _write(partial(sitk.WriteTransform, transform, str(folder / f"{name}.h5")))


def _write_extras(extras: Extras, folder: Path) -> None:
    if extras.confidence is not None:
        _write_checked(extras.confidence.image, folder / _CONFIDENCE)
    if extras.targets:
        _write(partial(target_files.write_targets, extras.targets, folder))


def _write(write: Callable[[], object]) -> None:
    """Run one of ITK's writers, with its failure as an `OSError` like everybody's."""
    try:
        write()
    except RuntimeError as error:
        raise OSError(errno.EIO, str(error)) from error


def _write_scene(result: Registration, path: Path, case_name: str) -> bool:
    from .mrml.scene_file import slicer_available, write_scene

    if not slicer_available():
        return False
    write_scene(result, path, name=case_name)
    return True


def result_json(
    result: Registration,
    *,
    case_name: str,
    inputs: dict[str, str],
    scene_written: bool,
    extras: Extras | None = None,
) -> dict[str, Any]:
    """What result.json holds: figures, landmarks, targets, warnings, times, provenance, all in LPS mm."""
    extras = extras or Extras()
    confidence = extras.confidence
    return {
        "format": RESULT_FORMAT,
        "notice": NOTICE,
        "case": case_name,
        "inputs": inputs,
        "method": result.method,
        "frame": "LPS, mm; transforms map TRUS points to MR points",
        # How the index axes of the TRUS lie in the patient where its header does not say; "" where it does.
        "trus_axes": result.trus_gland.axes,
        "indicator": registration_indicator(result, confidence).as_json(),
        "warnings": [asdict(warning) for warning in _distinct(result.warnings)],
        "measures": {
            "final": _rounded(result.measures),
            "rigid": _rounded(result.rigid_measures),
            "initial": _rounded(result.initial_measures),
        },
        "landmarks": [asdict(row) for row in result.measures.landmark_rows],
        **_mr_landmarks(result),
        "targets": target_files.targets_json(extras.targets),
        **({} if confidence is None else {"confidence": _confidence(confidence)}),
        "rigid": {"method": result.rigid.method, "rotation_deg": round(result.rigid.rotation_deg, 3)},
        "timings_s": {name: round(value, 3) for name, value in result.timings_s.items()},
        "scene": "scene.mrb" if scene_written else "not written: slicer-core is not installed",
        "provenance": result.provenance,
    }


def _mr_landmarks(result: Registration) -> dict[str, Any]:
    """Where the landmarks lie in the MR, by name."""
    given = result.mr_landmarks
    if given is None:
        return {}
    points = [[float(x) for x in point] for point in given.points_mm]
    return {"mr_landmarks_mm": dict(zip(given.names, points, strict=True))}


def _confidence(confidence: ConfidenceMap) -> dict[str, float | int | None]:
    """The figures of the map; the map itself is a file."""
    values = {name: value for name, value in vars(confidence).items() if name != "image"}
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in values.items()}


def _rounded(measures: Measures) -> dict[str, float]:
    return {name: round(value, 6) for name, value in measures.values.items()}


def _distinct(warnings: tuple[QualityWarning, ...]) -> list[QualityWarning]:
    return list(dict.fromkeys(warnings))


def _without_nan(value: Any) -> Any:
    """JSON has no nan: a figure that could not be computed is null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
