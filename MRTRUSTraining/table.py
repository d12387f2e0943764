"""`mrtrus-train table`: export the trained rows of a table, evaluate all its rows, write the table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from MRTRUSRegistrationLib.errors import InputError, RegistrationError
from MRTRUSRegistrationLib.geometry import Grid
from MRTRUSRegistrationLib.models import InstalledModel, check_file, list_models, read_card, resolve_device
from MRTRUSRegistrationLib.outputs import write_text_atomically
from MRTRUSRegistrationLib.pipeline import Settings
from MRTRUSRegistrationLib.segmentation import segment_gland

from .data.cases import Case, LoadedCase, load_case
from .data.unpaired import unpaired_in_all
from .evaluation.evaluate import MetricsRow, check_runnable, evaluate, metrics_csv, unpaired_by_case
from .export import export_registration, export_segmentation
from .paper_b.measures import SegmentationFigures, segmentation_figures
from .registration_settings import RegistrationSettings
from .row import Place, Row, rows_of_table
from .run import reopen
from .segmentation_training import SegmentationSettings
from .table_text import REFERENCE, Line, line_of, remarks_on, table_csv, table_markdown
from .trainer import steps_done
from .watching import read_seconds

Report = Callable[[str], None]
# By method, by figure: one value a case, in the order of the cases.
Figures = dict[str, dict[str, list[float]]]
_NO_MASK = {each.name: float("nan") for each in fields(SegmentationFigures)}


@dataclass(frozen=True)
class TableRequest:
    """Which table of which runs, on which cases, with which other methods of the pipeline beside them.

    Beside a table of segmenters `also` names installed segmenters.
    """

    table: str
    runs: Path
    cases: Sequence[Case]
    output: Path
    also: Sequence[str] = ()
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True)
class TableFiles:
    """The files of a table, and the cases on which a method of it failed."""

    markdown: Path
    csv: Path
    failed: tuple[str, ...]


def make_table(request: TableRequest, *, command: str, report: Report = print) -> TableFiles:
    """Write tableNAME.md and tableNAME.csv, the exported models, and metrics.csv where something registers.

    A row that is not trained stands in the table without our figures, as does a method on a case that it
    failed on. `InputError` where none can be compared, where the folder of the runs does not exist, where the
    device or a method is not known, or a run folder holds another row's run.
    """
    rows = rows_of_table(request.table)
    _check(rows, request)
    request.output.mkdir(parents=True, exist_ok=True)
    models = {row.name: _exported(row, request) for row in rows if _is_ready(row, request.runs)}
    if not models and not any(not row.is_trained for row in rows):
        raise InputError(
            f"{request.runs} holds no trained row of table {request.table}; train them by "
            f"`mrtrus-train run --table {request.table}`."
        )
    found = [] if _segments_only(rows) else _evaluated(rows, request, set(models), report)
    segmenters = _segmenters(rows, models, request)
    masks = _segmentation_figures(segmenters, request, report)
    figures = _registration_figures(found) | masks.figures
    lines = _lines(rows, figures, request)
    title = f"Table {request.table} on {len(request.cases)} pairs"
    failed = tuple(sorted({row.case for row in found if row.error} | masks.failed))
    page, table = (request.output / f"table{request.table}.{end}" for end in ("md", "csv"))
    text = table_markdown(request.table, lines, title=title, command=command, remarks=remarks_on(found))
    write_text_atomically(text, page)
    write_text_atomically(table_csv(request.table, lines), table)
    return TableFiles(page, table, failed)


def _check(rows: Sequence[Row], request: TableRequest) -> None:
    """`InputError` for what would make every case fail, before anything is exported."""
    if not request.runs.is_dir():
        raise InputError(f"The folder of runs {request.runs} does not exist; give the one that `run` wrote.")
    own = {row.name for row in rows if _is_ready(row, request.runs)}
    models = request.output / "models"
    settings = replace(request.settings, models=models if models.is_dir() else None)
    if _segments_only(rows):
        resolve_device(settings.device)
        for name in request.also:
            _installed_segmenter(name)
        return
    # The reference comes before them.
    check_runnable([REFERENCE, *request.also], settings, "predicted", networks=own)


def _segments_only(rows: Sequence[Row]) -> bool:
    return all(isinstance(row.method, SegmentationSettings) for row in rows)


def _installed_segmenter(name: str) -> InstalledModel:
    found = {each.card.name: each for each in list_models() if each.card.task == "segmentation"}
    if name not in found:
        raise InputError(f"There is no installed segmenter {name!r}; use some of {', '.join(found)}.")
    check_file(found[name])
    return found[name]


def _is_ready(row: Row, runs: Path) -> bool:
    return row.is_trained and (runs / row.name / "best.pt").is_file()


def _exported(row: Row, request: TableRequest) -> InstalledModel:
    """The model of a run, with the settings that the run had.

    Segmenters lie apart: the masks of the registrations are those of the bundled ones.
    """
    folder = request.runs / row.name
    found = reopen(folder).row
    if found.name != row.name:
        raise InputError(f"{folder} holds a run of the row {found.name}; keep each run in its own folder.")
    segments = isinstance(row.method, SegmentationSettings)
    card_path = export_row(found, folder, request.output / ("segmenters" if segments else "models"))
    return InstalledModel(read_card(card_path), card_path)


def export_row(row: Row, run: Path, output: Path, *, sharp: Path | None = None, note: str = "") -> Path:
    """Write the model of a run under its row's name, with `sharp` as in `export_segmentation`."""
    if isinstance(row.method, SegmentationSettings):
        return export_segmentation(
            run, row.method, output, name=row.name, title=row.title, sharp=sharp, note=note
        )
    if sharp is not None:
        raise InputError(f"The row {row.name} is no segmenter, so it has no second run.")
    if not isinstance(row.method, RegistrationSettings):
        raise InputError(f"The row {row.name} is not trained, so there is nothing to export.")
    return export_registration(run, row.method, output, name=row.name, title=row.title, note=note)


# --- figures ---------------------------------------------------------------------------------------------


def _evaluated(
    rows: Sequence[Row], request: TableRequest, trained: set[str], report: Report
) -> list[MetricsRow]:
    """Every method of the table that can run, the reference and the others, through `mrtrus evaluate`."""
    ready = [row for row in rows if not row.is_trained or row.name in trained]
    names = [row.pipeline_method for row in ready if not isinstance(row.method, SegmentationSettings)]
    methods = list(dict.fromkeys([*names, REFERENCE, *request.also]))
    folder = request.output / "models"
    folder.mkdir(exist_ok=True)
    settings = Settings(models=folder, device=request.settings.device, seed=request.settings.seed)

    def show(row: MetricsRow) -> None:
        report(f"{row.case} {row.method}: {row.error or f'DSC {row.dsc:.3f}, TRE {row.tre_rms_mm:.2f} mm'}")

    found = evaluate(request.cases, methods, masks="predicted", settings=settings, on_row=show)
    write_text_atomically(metrics_csv(found), request.output / "metrics.csv")
    left_out = unpaired_in_all(unpaired_by_case(found).values())
    if left_out:
        report(left_out)
    return found


def _registration_figures(found: Sequence[MetricsRow]) -> Figures:
    methods = dict.fromkeys(row.method for row in found)
    return {method: _by_figure([row for row in found if row.method == method]) for method in methods}


def _by_figure(rows: Sequence[MetricsRow]) -> dict[str, list[float]]:
    """A case that failed has nan in every figure."""
    values = [asdict(row) for row in rows]
    numbers = [name for name, value in values[0].items() if isinstance(value, float)]
    return {name: [value[name] for value in values] for name in numbers}


def _segmenters(
    rows: Sequence[Row], models: Mapping[str, InstalledModel], request: TableRequest
) -> dict[str, InstalledModel]:
    """The trained segmenters of a table, and the installed ones to compare where it has nothing else."""
    named = [row.name for row in rows if isinstance(row.method, SegmentationSettings)]
    found = {name: models[name] for name in named if name in models}
    also = request.also if _segments_only(rows) else ()
    return found | {name: _installed_segmenter(name) for name in also}


@dataclass(frozen=True)
class _MaskFigures:
    """The figures of segmenters' masks, and the cases that could not be loaded, which have nan."""

    figures: Figures
    failed: frozenset[str]


def _segmentation_figures(
    segmenters: Mapping[str, InstalledModel], request: TableRequest, report: Report
) -> _MaskFigures:
    figures: Figures = {name: defaultdict(list) for name in segmenters}
    device = resolve_device(request.settings.device) if segmenters else ""
    failed = set()
    for each in request.cases if segmenters else ():
        try:
            case = load_case(each)
        except InputError as error:
            report(f"{each.name}: {error}")
            failed.add(each.name)
            case = None
        for name, model in segmenters.items():
            values = _NO_MASK if case is None else _segmented(case, model, device)
            for figure, value in values.items():
                figures[name][figure].append(value)
            if case is not None:
                report(f"{case.name} {name}: DSC {values['dsc']:.3f}")
    return _MaskFigures(figures, frozenset(failed))


def _segmented(case: LoadedCase, model: InstalledModel, device: str) -> dict[str, float]:
    """The measures of one mask; a segmenter that finds no gland has drawn an empty one."""
    mr = model.card.modality == "MR"
    image, gland = (case.mr, case.mr_gland) if mr else (case.trus, case.trus_gland)
    try:
        mask = segment_gland(image, model, device=device).mask
    except RegistrationError:
        mask = Grid.of(gland).blank()
    return asdict(segmentation_figures(mask, gland))


# --- lines -----------------------------------------------------------------------------------------------


def _lines(rows: Sequence[Row], figures: Figures, request: TableRequest) -> list[Line]:
    table, patients = request.table, [case.patient for case in request.cases]
    lines = [
        line_of(
            row.pipeline_method,
            row.place(table),
            table,
            figures=figures,
            patients=patients,
            training=_training(row, request.runs),
            registers=not isinstance(row.method, SegmentationSettings),
        )
        for row in rows
    ]
    for name in request.also:
        place = Place(rows[0].place(table).table, len(lines) + 1, f"{name} (installed model)")
        lines.append(
            line_of(
                name,
                place,
                table,
                figures=figures,
                patients=patients,
                training="installed",
                registers=not _segments_only(rows),
            )
        )
    return lines


def _training(row: Row, runs: Path) -> str:
    """How long a row was trained, or that it was not."""
    if not row.is_trained:
        return "none"
    if not _is_ready(row, runs):
        return "not trained"
    schedule = reopen(runs / row.name).row.schedule
    seconds = read_seconds(runs / row.name / "time.json")
    steps = f"{schedule.steps} steps" if schedule else ""
    done = steps_done(runs / row.name)
    if schedule and done is not None and done < schedule.steps:
        steps = f"{done} of {steps}"
    return steps if seconds is None else f"{steps}, {seconds / 60:.0f} min"
