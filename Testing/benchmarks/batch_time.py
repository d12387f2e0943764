"""Time of one batch of N cases against N single runs, and how often the batch loads each model.

`python Testing/benchmarks/batch_time.py DATA [--cases 8] [--method cmsa] [--models FOLDER] [--device auto]`:
DATA is what `mrtrus batch` takes, such as a folder with mr_images and us_images. Half of the single runs come
before the batch and half after it, so that a machine whose speed drifts treats both alike. Quote the ratio.
"""

from __future__ import annotations

import argparse
import csv
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from MRTRUSRegistrationLib.batch_cases import BatchCase, read_cases
from MRTRUSRegistrationLib.job import Job

_COMMAND = [sys.executable, "-m", "MRTRUSRegistrationLib"]
# The fields of a job that are the same for all cases here, by option.
_COMMON = ("method", "models", "device")
_OWN = ("mr_mask", "trus_mask", "mr_landmarks", "trus_landmarks", "mr_orientation", "trus_orientation")


@dataclass(frozen=True)
class Comparison:
    """Wall seconds of every single run and of the batch, and how often its workers loaded each model."""

    single_s: list[float]
    batch_s: float
    loads: Counter[str]

    @property
    def ratio(self) -> float:
        """The batch against all single runs; below 1 the batch is faster."""
        return self.batch_s / sum(self.single_s)


def compare(cases: list[BatchCase], common: Job, folder: Path) -> Comparison:
    """Run the cases one by one and as a batch, with results in `folder`."""
    half = len(cases) // 2
    before = [_single_s(case, folder) for case in cases[:half]]
    batch_s = _batch_s(cases, common, folder)
    after = [_single_s(case, folder) for case in cases[half:]]
    return Comparison(before + after, batch_s, model_loads(folder / "batch"))


def model_loads(output: Path) -> Counter[str]:
    """How often the workers of a batch loaded each model, by their logs."""
    logs = [
        path.read_text(encoding="utf-8", errors="replace") for path in output.glob("workers/*/worker.log")
    ]
    return Counter(re.findall(r"^Loaded the model (\S+)", "\n".join(logs), re.MULTILINE))


def _single_s(case: BatchCase, folder: Path) -> float:
    job = replace(case.job, output=folder / "single" / case.name)
    options = [(name, getattr(job, name)) for name in (*_COMMON, *_OWN, "output")]
    given = [(f"--{name.replace('_', '-')}", str(value)) for name, value in options if value is not None]
    return _wall_s(["register", str(job.mr), str(job.trus), *[part for pair in given for part in pair]])


def _batch_s(cases: list[BatchCase], common: Job, folder: Path) -> float:
    table = folder / "cases.csv"
    with table.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["case", "mr", "trus", *_OWN])
        for case in cases:
            values = [getattr(case.job, name) for name in ("mr", "trus", *_OWN)]
            writer.writerow([case.name, *["" if value is None else value for value in values]])
    options = [(name, getattr(common, name)) for name in _COMMON]
    given = [(f"--{name}", str(value)) for name, value in options if value is not None]
    output = ["--output", str(folder / "batch")]
    return _wall_s(["batch", str(table), *output, *[part for pair in given for part in pair]])


def _wall_s(arguments: list[str]) -> float:
    start = time.perf_counter()
    done = subprocess.run([*_COMMAND, *arguments, "--quiet"], check=False)
    if done.returncode != 0:
        sys.exit(f"mrtrus {arguments[0]} failed.")
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--method", default="cmsa")
    parser.add_argument("--models", type=Path)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    models = None if options.models is None else options.models.absolute()
    common = Job(Path(), Path(), Path(), method=options.method, models=models, device=options.device)
    with tempfile.TemporaryDirectory(prefix="mrtrus-benchmark-") as name:
        cases = list(read_cases(options.data, Path(name), common))[: options.cases]
        found = compare(cases, common, Path(name))
    count, total_s = len(cases), sum(found.single_s)
    print(f"{count} single runs: {total_s:.1f} s; one batch of {count}: {found.batch_s:.1f} s")
    print(f"batch / single runs: {found.ratio:.2f}")
    for model, times in sorted(found.loads.items()):
        print(f"the batch loaded {model} {times} time{'' if times == 1 else 's'}")


if __name__ == "__main__":
    main()
