"""The simulated sample case as Slicer sample data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import InputError
from ..sample_case import sample_folder

CATEGORY = "MRTRUS Registration"
NAME = "MRTRUSSampleCase"
# File, node, how Slicer loads it, and the checksum that Slicer compares.
_FILES = (
    (
        "mr.nii.gz",
        "Sample MR",
        "VolumeFile",
        "3f82b6e098e2b5b98e941fb4ec32304aaf0ac95535f415014a232aada191eda4",
    ),
    (
        "trus.nii.gz",
        "Sample TRUS",
        "VolumeFile",
        "0cca1e2ad1d0818867da4e0e7d5f27840414214ae1a22314bd39c12781050b87",
    ),
    (
        "mr_landmarks.mrk.json",
        "Sample MR landmarks",
        "MarkupsFile",
        "121806f023bbeefc03647481264deec90313e09e63b27c11c5af7b047436bf1a",
    ),
    (
        "trus_landmarks.mrk.json",
        "Sample TRUS landmarks",
        "MarkupsFile",
        "049034a6586ec159e95ee9e7067ef4cf1a1fbdc2eb321ac5295ee6e1b1dc4e95",
    ),
)


def register_sample_data(thumbnail: Path) -> None:
    """Offer the sample case in Slicer's module Sample Data; called once the application has started."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=NAME,
        thumbnailFileName=str(thumbnail),
        uris=[(sample_folder() / file).as_uri() for file, *_ in _FILES],
        # The cache folder is shared by all modules.
        fileNames=[f"mrtrus_sample_{file}" for file, *_ in _FILES],
        nodeNames=[node for _, node, *_ in _FILES],
        loadFileType=[kind for *_, kind, _ in _FILES],
        checksums=[f"SHA256:{checksum}" for *_, checksum in _FILES],
    )


def load_sample() -> list[Any]:
    """The nodes of MR, TRUS and both lists of landmarks; `InputError` if they cannot be had."""
    import SampleData

    missing = [file for file, *_ in _FILES if not (sample_folder() / file).is_file()]
    if missing:
        raise InputError(f"{sample_folder() / missing[0]} is missing; install the extension again.")
    nodes = SampleData.SampleDataLogic().downloadSamples(NAME)
    if not nodes or len(nodes) != len(_FILES) or None in nodes:
        raise InputError("The sample case could not be read; install the extension again.")
    return list(nodes)
