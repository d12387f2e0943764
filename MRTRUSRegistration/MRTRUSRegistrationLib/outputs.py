"""The result folder of one case, written beside its target and moved into place when complete."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import SimpleITK as sitk  # noqa: N813

from .errors import InputError
from .progress import Reporter
from .report import write_report
from .results import Measures, QualityWarning, Registration

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
    "scene.mrb",
)
_OPTIONAL_FILES = ("trus.nii.gz", "mr_probability.nii.gz", "trus_probability.nii.gz")
_SPACE_BYTES = 200_000_000


def check_output(folder: Path, *, overwrite: bool) -> None:
    """`InputError` unless a result can be written to `folder` (before anything is computed)."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"The output {folder} is a file; give a folder.")
    if folder.is_dir() and any(folder.iterdir()):
        _check_replaceable(folder, overwrite)
    parent = folder.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise InputError(
            f"The folder {parent} cannot be written to ({error.strerror}); give another."
        ) from error
    if shutil.disk_usage(parent).free < _SPACE_BYTES:
        raise InputError(f"The disk of {parent} has less than 200 MB left; free some space or give another.")


def _check_replaceable(folder: Path, overwrite: bool) -> None:
    if not overwrite:
        raise InputError(
            f"The output folder {folder} is not empty; give --overwrite to replace the result in it."
        )
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in (*FILES, *_OPTIONAL_FILES))
    if foreign:
        raise InputError(
            f"The output folder {folder} holds files that are not from a registration ({foreign[0]}), so it "
            "is not replaced; give another folder."
        )


@contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its place at the end, or vanishes on an error.

    A full disk becomes an `InputError`. What killed runs left behind is removed first.
    """
    folder = folder.absolute()
    _remove_stale(folder)
    staging = folder.parent / f".{folder.name}.partial-{os.getpid()}"
    staging.mkdir()
    try:
        yield staging
        _move_into_place(staging, folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(
                f"The disk of {folder.parent} is full; free some space and run again."
            ) from error
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _move_into_place(staging: Path, folder: Path) -> None:
    old = folder.parent / f".{folder.name}.old-{os.getpid()}"
    if folder.exists():
        folder.rename(old)
    staging.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _remove_stale(folder: Path) -> None:
    """Remove staging folders of runs that are gone; put an old result back that a killed run had moved."""
    for path in folder.parent.glob(f".{folder.name}.*-*"):
        kind, _, pid = path.name.rpartition(".")[2].partition("-")
        if kind not in ("partial", "old") or not pid.isdigit() or _alive(int(pid)):
            continue
        if kind == "old" and not folder.exists():
            path.rename(folder)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _alive(pid: int) -> bool:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, 0)
        return True
    return False


def write_result(
    result: Registration,
    folder: Path,
    *,
    case_name: str,
    inputs: dict[str, str] | None = None,
    reporter: Reporter | None = None,
    with_trus: bool = False,
) -> None:
    """Write every file of a result; `check_output` should have been asked before.

    `with_trus` adds the TRUS volume itself, for a run that re-labelled its axes. Without slicer-core the
    scene is left out, and result.json says so.
    """
    reporter = reporter or Reporter()
    with staging_folder(folder) as staging:
        reporter.report("write", 0.0, "Images and transforms")
        _write_images(result, staging, with_trus)
        _write_transforms(result, staging)
        reporter.report("write", 0.4, "Slicer scene")
        scene_written = _write_scene(result, staging / "scene.mrb", case_name)
        reporter.report("write", 0.7, "Report")
        write_report(result, staging / "report.html", case_name=case_name)
        content = result_json(result, case_name=case_name, inputs=inputs or {}, scene_written=scene_written)
        (staging / "result.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        reporter.report("write", 1.0)


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
    try:
        sitk.WriteImage(image, str(path), useCompression=True, compressionLevel=3)
    except RuntimeError as error:
        raise _full_or_failed(path, error) from error


def _write_transforms(result: Registration, folder: Path) -> None:
    for name, transform in (("mr_to_trus", result.transform), ("rigid", result.rigid.transform)):
        path = folder / f"{name}.h5"
        try:
            sitk.WriteTransform(transform, str(path))
        except RuntimeError as error:
            raise _full_or_failed(path, error) from error


def _full_or_failed(path: Path, error: RuntimeError) -> OSError:
    """ITK reports a full disk as any other failure; the space that is left tells them apart."""
    code = errno.ENOSPC if shutil.disk_usage(path.parent).free < 5_000_000 else errno.EIO
    return OSError(code, str(error), str(path))


def _write_scene(result: Registration, path: Path, case_name: str) -> bool:
    from .mrml.scene_file import slicer_available, write_scene

    if not slicer_available():
        return False
    write_scene(result, path, name=case_name)
    return True


def result_json(
    result: Registration, *, case_name: str, inputs: dict[str, str], scene_written: bool
) -> dict[str, Any]:
    """What result.json holds: figures, landmarks, warnings, times and provenance, all in LPS mm."""
    return {
        "format": RESULT_FORMAT,
        "notice": NOTICE,
        "case": case_name,
        "inputs": inputs,
        "method": result.method,
        "frame": "LPS, mm; transforms map TRUS points to MR points",
        "warnings": [asdict(warning) for warning in _distinct(result.warnings)],
        "measures": {
            "final": _rounded(result.measures),
            "rigid": _rounded(result.rigid_measures),
            "initial": _rounded(result.initial_measures),
        },
        "landmarks": [asdict(row) for row in result.measures.landmark_rows],
        "rigid": {"method": result.rigid.method, "rotation_deg": round(result.rigid.rotation_deg, 3)},
        "timings_s": {name: round(value, 3) for name, value in result.timings_s.items()},
        "scene": "scene.mrb" if scene_written else "not written: slicer-core is not installed",
        "provenance": result.provenance,
    }


def _rounded(measures: Measures) -> dict[str, float]:
    return {name: round(value, 6) for name, value in measures.values.items()}


def _distinct(warnings: tuple[QualityWarning, ...]) -> list[QualityWarning]:
    return list(dict.fromkeys(warnings))
