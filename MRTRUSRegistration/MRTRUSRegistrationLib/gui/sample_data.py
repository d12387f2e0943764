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
        "0b97f5a9486b3c7cb48a0ef258aa1beaa77de6982d82e07de5d445836f7da26f",
    ),
    (
        "trus.nii.gz",
        "Sample TRUS",
        "VolumeFile",
        "287612a833822ba1491969dab50debe02d78d84eb7a1178076d7c5cb6e25be4a",
    ),
    (
        "mr_landmarks.mrk.json",
        "Sample MR landmarks",
        "MarkupsFile",
        "cf70cc8f16df7c23254d89e9b19e7553e75fd550722e446c1b84b998da5c6ec5",
    ),
    (
        "trus_landmarks.mrk.json",
        "Sample TRUS landmarks",
        "MarkupsFile",
        "f5b58fbd71c92c2c31d00bea5e456743212cb43c7bca7c7af9904621e8d96279",
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
