"""Prepared samples on disk: read where nothing changed, made anew where anything did."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dataset_case import write_dataset
from disks import fill
from row_case import registration_content, segmentation_content
from shapes import array

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSTraining import registration_samples, segmentation_training
from MRTRUSTraining.data.cache import cached
from MRTRUSTraining.data.cases import find_cases
from MRTRUSTraining.registration_settings import RegistrationSettings
from MRTRUSTraining.row import row_from
from MRTRUSTraining.segmentation_training import SegmentationSettings


class Maker:
    """Makes an entry and counts how often it had to."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Mapping[str, Any]:
        self.calls += 1
        return {"name": "a", "image": torch.arange(6.0), "voxel_mm": 1.5, "truth": None, "call": self.calls}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "image.nii.gz"
    path.write_bytes(b"one")
    return path


def test_the_second_call_reads(tmp_path: Path, source: Path) -> None:
    make = Maker()
    first = cached(tmp_path / "new" / "cache", "settings", [source], make)
    second = cached(tmp_path / "new" / "cache", "settings", [source], make)
    assert make.calls == 1
    assert second["call"] == 1
    assert (second["name"], second["voxel_mm"], second["truth"]) == ("a", 1.5, None)
    assert torch.equal(second["image"], first["image"])
    assert [path.suffix for path in (tmp_path / "new" / "cache").iterdir()] == [".pt"]


def _other_settings(source: Path) -> str:
    return "other settings"


def _other_size(source: Path) -> str:
    state = source.stat()
    source.write_bytes(b"longer")
    os.utime(source, ns=(state.st_atime_ns, state.st_mtime_ns))
    return "settings"


def _other_time(source: Path) -> str:
    state = source.stat()
    os.utime(source, ns=(state.st_atime_ns, state.st_mtime_ns + 1_000_000))
    return "settings"


@pytest.mark.parametrize("change", [_other_settings, _other_size, _other_time])
def test_a_change_makes_it_anew(tmp_path: Path, source: Path, change: Any) -> None:
    make = Maker()
    cached(tmp_path / "cache", "settings", [source], make)
    settings = change(source)
    assert cached(tmp_path / "cache", settings, [source], make)["call"] == 2
    assert cached(tmp_path / "cache", settings, [source], make)["call"] == 2, "which is kept in turn"


@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"", lambda raw: b"x" * 99])
def test_a_damaged_entry_is_made_anew(tmp_path: Path, source: Path, damage: Any) -> None:
    make = Maker()
    cached(tmp_path / "cache", "settings", [source], make)
    (entry,) = (tmp_path / "cache").iterdir()
    entry.write_bytes(damage(entry.read_bytes()))
    assert cached(tmp_path / "cache", "settings", [source], make)["call"] == 2
    assert cached(tmp_path / "cache", "settings", [source], make)["call"] == 2


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path, source: Path) -> None:
    with pytest.raises(InputError, match=r"cache .*image\.nii\.gz cannot be written"):
        cached(source, "settings", [source], Maker())


def test_a_full_disk_is_refused_and_nothing_half_written_stays(small_disk: Path, source: Path) -> None:
    folder = small_disk / "cache"
    folder.mkdir()
    filler = fill(small_disk, leave_bytes=0)
    try:
        with pytest.raises(InputError, match="cannot be written"):
            cached(folder, "settings", [source], lambda: {"image": torch.zeros(100_000)})
        assert list(folder.iterdir()) == []
    finally:
        filler.unlink()


# --- samples ---------------------------------------------------------------------------------------------

READINGS: dict[str, dict[str, Any]] = {
    "the MR turned": {"mr_orientation": "PRS"},
    "the TRUS turned": {"trus_orientation": "PRS"},
    "of another layout": {"layout": "mrus"},
}


@pytest.mark.parametrize("reading", READINGS.values(), ids=READINGS)
def test_a_case_that_is_read_in_another_way_is_prepared_anew(tmp_path: Path, reading: dict[str, Any]) -> None:
    """The same files, of which the manifest or the layout says otherwise how they lie in the patient."""
    write_dataset(tmp_path / "data", "muregpro", ("a",))
    (case,) = find_cases(tmp_path / "data", "muregpro")
    pairs, volumes = (row_from(content(), "test").method for content in (registration_content, trus_row))
    assert isinstance(pairs, RegistrationSettings)
    assert isinstance(volumes, SegmentationSettings)
    for each in (case, *(replace(case, **other) for other in READINGS.values())):
        registration_samples.prepare_samples([each], pairs, tmp_path / "cache")
        segmentation_training.prepare_samples([each], volumes, tmp_path / "cache")
    changed = replace(case, **reading)
    for cache in (None, tmp_path / "cache"):
        (pair,) = registration_samples.prepare_samples([changed], pairs, cache)
        (volume,) = segmentation_training.prepare_samples([changed], volumes, cache)
        if cache is None:
            fresh = pair, volume
    torch.testing.assert_close(pair.moving_image, fresh[0].moving_image)
    torch.testing.assert_close(pair.fixed_image, fresh[0].fixed_image)
    np.testing.assert_array_equal(array(volume.prepared), array(fresh[1].prepared))


def trus_row() -> dict[str, Any]:
    return segmentation_content(modality="TRUS")
