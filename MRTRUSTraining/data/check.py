"""`mrtrus-train check`: what is wrong with a data set, before a training finds out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any, cast

import numpy as np
import typer

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import Grid
from MRTRUSRegistrationLib.outputs import write_text_atomically

from .case_checks import CaseFacts, Finding, inspect_case
from .case_files import LAYOUTS, Case, Layout
from .cases import detect_layout, list_cases
from .duplicates import Fingerprint, duplicates
from .folders import Root, roots
from .manifest import MANIFEST_NAME, manifest_path
from .splits import SPLIT_NAME, Parts, leaks, own_parts

# On the 73 real pairs different patients stay below 0.77 in MR and 0.82 in TRUS, where sweeps look alike.
# Copies of them that are moved by 8 mm, turned by 3°, cut off by 5 voxels a side, noisy or of other contrast
# correlate above 0.94; a TRUS of small content that was cut off came to 0.89.
SAME_IMAGE = 0.88
# Of one patient, sweeps of one session correlate up to 0.99 and are no fault.
SAME_SWEEP = 0.995
# Scanners of one study differ by less than these factors.
_SPACING_FACTOR = 1.5
_EXTENT_FACTOR = 2.0
_ENOUGH_CASES = 4


@dataclass(frozen=True)
class CheckReport:
    """The outcome of a check; errors come first."""

    layout: Layout
    cases: int
    patients: int
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "error")

    def to_json(self) -> str:
        content: dict[str, Any] = asdict(self) | {"errors": len(self.errors)}
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def check(
    data: Annotated[Path, typer.Argument(help="Folder of a data set, or a manifest (CSV).")],
    layout: Annotated[str, typer.Option(help=f"auto or one of {', '.join(LAYOUTS)}.")] = "auto",
    output: Annotated[Path | None, typer.Option(help="Also write the findings to this JSON file.")] = None,
) -> None:
    """Report what is wrong with a data set; exit code 2 where something must be put right."""
    from rich.console import Console
    from rich.progress import Progress

    if layout not in ("auto", *LAYOUTS):
        raise InputError(f"The layout {layout!r} is not known; use auto, {', '.join(LAYOUTS)}.")
    known = detect_layout(data) if layout == "auto" else cast(Layout, layout)
    if output is not None:
        _check_output(output, data, known)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Checking", total=1.0)
        report = check_data(data, known, on_progress=lambda share: progress.update(task, completed=share))
    # First, so that a disk that is full by now does not cost the findings.
    _print(report, data)
    if output is not None:
        write_text_atomically(report.to_json(), output)
    if report.errors:
        raise typer.Exit(InputError.exit_code)


def _check_output(output: Path, data: Path, layout: Layout) -> None:
    """`InputError` unless a report may be written there, before every image is read; makes its folder."""
    target = output.resolve()
    if target in _own_files(data, layout) or target.parent in _image_folders(data, layout):
        raise InputError(f"The output {output} is a place of the data set itself; give another file.")
    if output.exists() and not _is_report(output):
        raise InputError(f"The output {output} exists and is not the report of a check; give another file.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise InputError(
            f"The output {output} cannot be written ({error.strerror}); give another."
        ) from error


def _own_files(data: Path, layout: Layout) -> set[Path]:
    """Every file that is read of a data set, those included that it may lack."""
    table = manifest_path(data) if layout == "manifest" else data / MANIFEST_NAME
    named = [path for case in list_cases(data, layout) for path in case.files]
    return {path.resolve() for path in (data, table, data / SPLIT_NAME, *named)}


def _image_folders(data: Path, layout: Layout) -> set[Path]:
    """The folders of which every image is a case."""
    if layout == "manifest":
        return set()
    return {folder.resolve() for root in roots(data, layout) for folder in root.folders}


def _is_report(path: Path) -> bool:
    """Whether the file is what `CheckReport.to_json` writes."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"layout", "findings"} <= content.keys()


def check_data(
    data: Path, layout: Layout, *, on_progress: Callable[[float], None] | None = None
) -> CheckReport:
    """Everything that is wrong with a data set; `InputError` only where it cannot be listed at all."""
    cases = list_cases(data, layout)
    present = [case for case in cases if all(path.exists() for path in case.files)]
    findings = list(_missing(data, layout, cases))
    cohort = _Cohort()
    for number, case in enumerate(present, start=1):
        facts = inspect_case(case)
        findings += facts.findings
        cohort.add(facts)
        if on_progress is not None:
            on_progress(number / len(present))
    parts, split_findings = _split(data, cases)
    findings += [*cohort.outliers(), *split_findings, *_repeated(cohort, cases, parts)]
    findings.sort(key=lambda finding: finding.severity)
    return CheckReport(layout, len(cases), len({case.patient for case in cases}), tuple(findings))


@dataclass
class _Cohort:
    """What of every image, by side and case, is compared with the others: no voxels, as they may be many."""

    grids: dict[str, dict[str, Grid]] = field(default_factory=lambda: {"MR": {}, "TRUS": {}})
    prints: dict[str, dict[str, Fingerprint]] = field(default_factory=lambda: {"MR": {}, "TRUS": {}})

    def add(self, facts: CaseFacts) -> None:
        for side, image in (("MR", facts.mr.image), ("TRUS", facts.trus.image)):
            if image is not None:
                self.grids[side][facts.case.name] = Grid.of(image)
                self.prints[side][facts.case.name] = Fingerprint.of(image)

    def outliers(self) -> Iterator[Finding]:
        """Images whose spacing or extent is unlike that of the others of their side."""
        for side, grids in self.grids.items():
            if len(grids) < _ENOUGH_CASES:
                continue
            spacing_mm = np.array([grid.spacing_mm for grid in grids.values()])
            extent_mm = spacing_mm * np.array([grid.size_vox for grid in grids.values()])
            for what, values, factor in (
                ("spacing", spacing_mm, _SPACING_FACTOR),
                ("extent", extent_mm, _EXTENT_FACTOR),
            ):
                yield from _far_off(side, what, dict(zip(grids, values, strict=True)), factor)


def _far_off(side: str, what: str, values_mm: dict[str, np.ndarray], factor: float) -> Iterator[Finding]:
    usual = np.median(list(values_mm.values()), axis=0)
    for name, value in values_mm.items():
        if np.abs(np.log(value / usual)).max() > np.log(factor):
            shown, normal = (" × ".join(f"{x:.3g}" for x in triple) for triple in (value, usual))
            message = f"The {what} of the {side} of case {name} is {shown} mm where {normal} mm are usual."
            yield Finding("warning", f"{what}_outlier", (name,), message)


def _missing(data: Path, layout: Layout, cases: Sequence[Case]) -> Iterator[Finding]:
    """Cases that lack a file; in folders also those that have labels or TRUS alone."""
    wanted = list(cases)
    if layout != "manifest":
        wanted = [case for root in roots(data, layout) for case in _in_any_folder(root)]
    for case in wanted:
        absent = [str(path) for path in case.files if not path.exists()]
        if absent:
            message = f"Case {case.name} lacks {' and '.join(absent)}."
            yield Finding("error", "missing_file", (case.name,), message)


def _in_any_folder(root: Root) -> list[Case]:
    names = {path.name.removesuffix(".nii.gz") for folder in root.folders for path in folder.glob("*.nii.gz")}
    return [root.case(name, name) for name in sorted(names)]


def _split(data: Path, cases: Sequence[Case]) -> tuple[Parts, list[Finding]]:
    """The data set's own split, and what is wrong with it."""
    try:
        parts = own_parts(data, cases)
    except InputError as error:
        return {}, [Finding("error", "split_unreadable", (), str(error))]
    patients = {case.name: case.patient for case in cases}
    found = [
        Finding("error", "split_leak", leak.cases, f"The split leaks: {leak}.")
        for leak in leaks(parts, patients)
    ]
    named = {name for names in parts.values() for name in names}
    for name in sorted(named - set(patients)):
        found.append(
            Finding("error", "split_unknown", (name,), f"The split names {name}, which is not there.")
        )
    left = sorted(set(patients) - named) if parts else []
    if left:
        message = f"{len(left)} case(s) are in no part of the split: {_some(left)}."
        found.append(Finding("warning", "split_left_out", tuple(left), message))
    return parts, found


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (" …" if len(names) > 5 else "")


def _repeated(cohort: _Cohort, cases: Sequence[Case], parts: Parts) -> Iterator[Finding]:
    """The same image or patient in two cases: a fault, unless one patient's MR goes with several sweeps."""
    patients = {case.name: case.patient for case in cases}
    part_of = {name: part for part, names in parts.items() for name in names}
    same = {
        side: {(a, b): value for a, b, value in duplicates(prints, threshold=SAME_IMAGE)}
        for side, prints in cohort.prints.items()
    }
    for side, pairs in same.items():
        # Two sweeps of one patient are as alike as copies are.
        alike = "is the same image" if side == "MR" else "is the same image or another of the same patient"
        for (a, b), value in pairs.items():
            what = f"The {side} of cases {a} and {b} {alike} (correlation {value:.2f})"
            if patients[a] == patients[b]:
                if side == "MR" and min(value, same["TRUS"].get((a, b), 0.0)) > SAME_SWEEP:
                    message = (
                        f"Cases {a} and {b} of patient {patients[a]} have the same MR and the same TRUS."
                    )
                    yield Finding("warning", "duplicate_pair", (a, b), message)
            # A case in no part of the split is not learnt from, so nothing leaks through it.
            elif a in part_of and b in part_of and part_of[a] != part_of[b]:
                message = f"{what}, but they are in different parts of the split; group them as one patient."
                yield Finding("error", "duplicate_leak", (a, b), message)
            else:
                message = f"{what}, but they are listed as different patients."
                yield Finding("warning", "duplicate_patient", (a, b), message)


def _print(report: CheckReport, data: Path) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    # Names may hold brackets and colons, which are markup and emoji in a plain string.
    counts = f"{data}: {report.cases} cases of {report.patients} patients, layout {report.layout}"
    if not report.findings:
        console.print(Text(f"{counts}; nothing was found."))
        return
    table = Table("severity", "what", "finding", title=Text(counts))
    for finding in report.findings:
        table.add_row(finding.severity, finding.code, Text(finding.message))
    console.print(table)
    console.print(f"{len(report.errors)} error(s), {len(report.findings) - len(report.errors)} warning(s)")
