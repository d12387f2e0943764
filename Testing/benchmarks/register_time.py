"""Time and memory of one `mrtrus register`, stage by stage, against `--method syn` in the same run.

`python Testing/benchmarks/register_time.py MR TRUS [--repeats 3]`: every repeat starts two fresh processes,
one a method, in turn, so that a machine whose speed drifts treats both alike. Quote the ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Run:
    """One process: wall seconds, peak memory in MB, seconds of each stage."""

    wall_s: float
    peak_mb: float
    stages_s: dict[str, float]


def measure(mr: Path, trus: Path, method: str) -> Run:
    """Register in a fresh process; memory is the peak of that process as the system accounts it."""
    folder = Path(tempfile.mkdtemp(prefix="mrtrus-benchmark-"))
    try:
        command = [sys.executable, "-m", "MRTRUSRegistrationLib", "register", str(mr), str(trus)]
        command += ["--output", str(folder / "result"), "--method", method, "--quiet"]
        start = time.perf_counter()
        process = subprocess.Popen(command)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - start
        if status != 0:
            sys.exit(f"mrtrus register --method {method} failed.")
        stages = json.loads((folder / "result" / "result.json").read_text())["timings_s"]
        return Run(wall_s, usage.ru_maxrss / 1024, stages)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def print_table(runs: dict[str, list[Run]]) -> None:
    """Medians over the repeats."""
    for method, repeats in runs.items():
        wall = statistics.median(run.wall_s for run in repeats)
        peak = max(run.peak_mb for run in repeats)
        print(f"\n{method}: {wall:.1f} s wall (median of {len(repeats)}), peak {peak:.0f} MB")
        for stage in repeats[0].stages_s:
            seconds = statistics.median(run.stages_s.get(stage, 0.0) for run in repeats)
            print(f"  {stage:14s} {seconds:6.2f} s")
        inside = statistics.median(run.wall_s - sum(run.stages_s.values()) for run in repeats)
        print(f"  {'start, files':14s} {inside:6.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mr", type=Path)
    parser.add_argument("trus", type=Path)
    parser.add_argument("--method", default="cmsa")
    parser.add_argument("--peer", default="syn")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    runs: dict[str, list[Run]] = {options.method: [], options.peer: []}
    for _ in range(options.repeats):
        for method, repeats in runs.items():
            repeats.append(measure(options.mr, options.trus, method))
    print_table(runs)
    ratios = [a.wall_s / b.wall_s for a, b in zip(runs[options.method], runs[options.peer], strict=True)]
    print(f"\nwall time {options.method} / {options.peer}: {statistics.median(ratios):.2f} (median of pairs)")


if __name__ == "__main__":
    main()
