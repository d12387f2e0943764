"""Register many cases inside 3D Slicer, or with any Python that can import the library.

Slicer --no-splash --no-main-window --additional-module-paths MRTRUSRegistration \\
    --python-script MRTRUSRegistration/Scripts/batch.py -- CASES.csv --output DIR

It is the same as `mrtrus batch`: CASES is a CSV with the columns case, mr and trus, or a folder of cases.
Exit codes: 0 done, 2 bad input, 3 some cases failed, 130 interrupted.
"""

import argparse
import os
import signal
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from MRTRUSRegistrationLib.errors import InputError, failure_of

_HINT = "run again with MRTRUS_TRACEBACK=1 set to see where"


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options; Slicer hands on the `--` that ends its own."""
    parser = argparse.ArgumentParser(prog="batch.py", description="Register many cases. Research use only.")
    parser.add_argument("cases", type=Path, help="CSV with the columns case, mr, trus, or a folder of cases.")
    parser.add_argument("--output", type=Path, required=True, help="Folder for results, table and report.")
    parser.add_argument("--method", default="cmsa", help="cmsa, syn, rigid, centroid, initial or a model.")
    parser.add_argument("--models", type=Path, help="Folder of models, searched first.")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of ANTs.")
    parser.add_argument("--confidence", type=int, default=0, help="Perturbations for each confidence map.")
    parser.add_argument("--workers", type=int, default=1, help="Worker processes side by side.")
    parser.add_argument("--retry-failed", action="store_true", help="Run failed cases again.")
    return parser.parse_args(arguments[1:] if arguments[:1] == ["--"] else arguments)


def run(options: argparse.Namespace) -> None:
    """Run the batch, a line a case on standard output; raises what `run_batch` raises."""
    from MRTRUSRegistrationLib.batch import BatchProgress, BatchSettings, case_line, run_batch

    def show(now: BatchProgress) -> None:
        if now.finished is not None:
            print(f"{case_line(now.finished)} ({now.left} left)", flush=True)

    values = vars(options).copy()
    source, output = values.pop("cases"), values.pop("output")
    result = run_batch(source, output, settings=BatchSettings(**values), watch=show, **worker())
    print(f"Table: {result.table}\nReport: {result.page}", flush=True)
    result.check()


def in_slicer() -> bool:
    """Whether this runs in the application, not merely where slicer-core is installed."""
    return getattr(sys.modules.get("slicer"), "app", None) is not None


def worker() -> dict[str, object]:
    """Inside Slicer the worker is PythonSlicer with the module's own packages; else it is this Python."""
    if not in_slicer():
        return {}
    from MRTRUSRegistrationLib.gui.worker_environment import WorkerSetup, worker_python

    setup = WorkerSetup()
    if not setup.ready:
        raise InputError(
            "PyTorch or the module's packages are not installed; open the module MRTRUS Registration once "
            "and let it install them."
        )
    return {"python": worker_python(), "environment": setup.environment()}


def main(arguments: list[str]) -> int:
    """The exit code; whatever happens is one line on standard error."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        run(parse(arguments))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else InputError.exit_code
    except BaseException as error:
        if os.environ.get("MRTRUS_TRACEBACK"):
            traceback.print_exc()
        failure = failure_of(error, hint=_HINT)
        print(f"Error: {' '.join(failure.message.split())}", file=sys.stderr, flush=True)
        return failure.exit_code
    return 0


def leave(code: int) -> None:
    """Slicer would stay open without being told to end."""
    if in_slicer():
        import slicer

        slicer.util.exit(code)
    else:
        sys.exit(code)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
