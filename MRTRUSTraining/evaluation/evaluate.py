"""Evaluation of registration methods against reference labels, one row per case and method.

The reference is always the human gland and landmarks, also where predicted masks drove the registration.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813

from MRTRUSRegistrationLib.errors import Cancelled, InputError, MrtrusError
from MRTRUSRegistrationLib.geometry import Grid, mask_centroid_mm, mask_points_mm, resample_mask
from MRTRUSRegistrationLib.measures import dsc, registration_measures
from MRTRUSRegistrationLib.models import find_model, model_for_detail, resolve_device
from MRTRUSRegistrationLib.pipeline import RigidStage, Settings, method_named, register, stage_maps
from MRTRUSRegistrationLib.results import GlandSegmentation, Landmarks, Registration, RigidAlignment
from MRTRUSRegistrationLib.seeds import check_seed
from MRTRUSRegistrationLib.transforms import transform_points_mm

from ..data.cases import Case, LoadedCase, load_case
from ..data.unpaired import UNPAIRED
from .extras import Extras, MeasureSet
from .labels import LabelRow, label_rows, labels_csv
from .mureg import ChallengeFigures

Masks = Literal["reference", "predicted"]
# A control: the network gets the glands' shapes but images without content.
ZEROED = "+zeroed"
OnCase = Callable[[LoadedCase, Mapping[str, Registration]], None]
_NO_COLUMN: Mapping[str, Any] = {"column": False}


@dataclass(frozen=True)
class MetricsRow:
    """The figures of one case and method; the columns of metrics.csv. nan where there is none.

    `model` is the registration network that ran, which for a sharp TRUS may be another than the method's;
    `own_folds_percent` is that of the field before it was smoothed where it folds, see `results.Deformation`.
    `segmenter_mr` and `segmenter_trus` are the models that drew the masks, empty for reference ones.

    `extras` holds the measures taken on request, whose names are columns too; `labels` has a row a label, and
    `unpaired` a sentence for each landmark of the case that one modality lacks.
    """

    case: str
    method: str
    masks: str
    dsc: float = np.nan
    hd95_mm: float = np.nan
    tre_rms_mm: float = np.nan
    tre_mean_mm: float = np.nan
    landmarks: int = 0
    landmarks_lost: int = 0
    folds_percent: float = np.nan
    seconds: float = np.nan
    patient: str = ""
    dense_tre_mean_mm: float = np.nan
    msd_mm: float = np.nan
    gland_centroid_mm: float = np.nan
    jacobian_min: float = np.nan
    jacobian_log_std: float = np.nan
    gland_volume_change_percent: float = np.nan
    displacement_mean_mm: float = np.nan
    displacement_max_mm: float = np.nan
    segmentation_dsc_mr: float = np.nan
    segmentation_dsc_trus: float = np.nan
    own_folds_percent: float = np.nan
    segmenter_mr: str = ""
    segmenter_trus: str = ""
    model: str = ""
    warnings: str = ""
    error: str = ""
    extras: Mapping[str, float] = field(default_factory=dict, metadata=_NO_COLUMN)
    labels: tuple[LabelRow, ...] = field(default=(), metadata=_NO_COLUMN)
    challenge: ChallengeFigures | None = field(default=None, metadata=_NO_COLUMN)
    unpaired: tuple[str, ...] = field(default=(), metadata=_NO_COLUMN)


def check_runnable(
    methods: Sequence[str], settings: Settings, masks: Masks, *, networks: Collection[str] = ()
) -> None:
    """`InputError` for what would fail in every case, so that it is found before the first is computed.

    `networks` are names of models that will be installed when the methods run.
    """
    check_seed(settings.seed)
    resolve_device(settings.device)
    for method in methods:
        name = method.removesuffix(ZEROED)
        is_network = name in networks or method_named(name, settings.models).deformable == "network"
        if method.endswith(ZEROED) and not is_network:
            raise InputError(f"The control {method} is one of networks, which this method has not.")
    if masks == "predicted":
        if methods and methods[0].endswith(ZEROED):
            raise _control_without_masks(methods[0])
        for modality in ("MR", "TRUS"):
            find_model(task="segmentation", modality=modality, extra=settings.models)


def _control_without_masks(method: str) -> InputError:
    return InputError(f"The control {method} needs masks: name another method before it.")


def landmarks_of(labels: Sequence[sitk.Image], names: Sequence[str]) -> Landmarks:
    """Landmarks from label images: every label but the first, which is the gland."""
    points = np.array([mask_centroid_mm(label) for label in labels[1:]]).reshape(-1, 3)
    return Landmarks(tuple(names[1:]), points, tuple(labels[1:]))


def evaluate_case(
    case: LoadedCase,
    methods: Sequence[str],
    *,
    masks: Masks,
    settings: Settings,
    measures: Collection[MeasureSet] = (),
    on_result: Callable[[str, Registration], object] | None = None,
) -> Iterator[MetricsRow]:
    """Run every method on one case; stages that methods share are computed once and counted for each.

    `on_result` is given the result of every method that did not fail.
    """
    done: Registration | None = None
    extras = Extras.of(case, measures)
    glands = _reference_glands(case) if masks == "reference" else None
    shared_s = 0.0
    for method in methods:
        row = MetricsRow(
            case.name,
            method,
            masks,
            patient=case.patient,
            warnings=UNPAIRED if case.unpaired else "",
            unpaired=case.unpaired,
        )
        try:
            shares = _shares_alignment(case, method, settings)
            alignment = done.rigid if done is not None and shares else None
            result = _register(case, method, settings, glands, alignment)
        except Cancelled:
            raise
        except MrtrusError as error:
            yield replace(row, error=str(error))
            continue
        seconds = sum(result.timings_s.values())
        if glands is None:
            glands = result.mr_gland, result.trus_gland
            shared_s = sum(v for k, v in result.timings_s.items() if k.startswith("segment"))
        elif masks == "predicted":
            seconds += shared_s
        if alignment is not None and done is not None:
            seconds += done.timings_s["align"]
        if done is None and shares:
            done = result
        if on_result is not None:
            on_result(method, result)
        yield _scored(row, case, result, seconds, extras)


def _register(
    case: LoadedCase,
    method: str,
    settings: Settings,
    glands: tuple[GlandSegmentation, GlandSegmentation] | None,
    alignment: RigidAlignment | None,
) -> Registration:
    if method.endswith(ZEROED) and glands is None:
        raise _control_without_masks(method)
    mr, trus = _images_for(case, method)
    # The control asks for the network that the images with their content are given to.
    name = _network_of(case, method, settings) if method.endswith(ZEROED) else method
    return register(
        mr,
        trus,
        settings=_settings_for(case, name, settings),
        mr_gland=glands[0] if glands else None,
        trus_gland=glands[1] if glands else None,
        rigid=alignment,
    )


def _network_of(case: LoadedCase, method: str, settings: Settings) -> str:
    """The method, or the network that its card names for a TRUS as sharp as the case's."""
    name = method.removesuffix(ZEROED)
    if method_named(name, settings.models).deformable != "network":
        return name
    model = find_model(task="registration", modality="MR-TRUS", name=name, extra=settings.models)
    return model_for_detail(model, case.trus, settings.models).card.name


def _reference_glands(case: LoadedCase) -> tuple[GlandSegmentation, GlandSegmentation]:
    return GlandSegmentation(case.mr_gland), GlandSegmentation(case.trus_gland)


def _settings_for(case: LoadedCase, method: str, settings: Settings) -> Settings:
    """Methods without an alignment get the data set's own start; the others match the centroids first."""
    own_start = _rigid_stage(case, method, settings) == "initial"
    return replace(settings, method=method, initial=case.initial if own_start else "gland")


def _images_for(case: LoadedCase, method: str) -> tuple[sitk.Image, sitk.Image]:
    return (case.mr * 0.0, case.trus * 0.0) if method.endswith(ZEROED) else (case.mr, case.trus)


def _rigid_stage(case: LoadedCase, method: str, settings: Settings) -> RigidStage:
    return method_named(_network_of(case, method, settings), settings.models).rigid


def _shares_alignment(case: LoadedCase, method: str, settings: Settings) -> bool:
    """Whether the method starts from ANTs' alignment and leaves it so, as `rigid` has it.

    A network whose card says `rigid_part` puts its own in its place.
    """
    if _rigid_stage(case, method, settings) != "ants":
        return False
    name = _network_of(case, method, settings)
    if method_named(name, settings.models).deformable != "network":
        return True
    model = find_model(task="registration", modality="MR-TRUS", name=name, extra=settings.models)
    return not model.card.settings.get("rigid_part")


def _scored(
    row: MetricsRow, case: LoadedCase, result: Registration, seconds: float, extras: Extras
) -> MetricsRow:
    moved = resample_mask(case.mr_gland, Grid.of(case.trus), result.transform)
    rows = stage_maps(result).rows(*_case_landmarks(case), Grid.of(case.trus))
    deformation = result.deformation.transform if result.deformation else None
    values = registration_measures(moved, case.trus_gland, rows, deformation=deformation).values
    columns = set(_columns())
    known = {name: value for name, value in values.items() if name in columns}
    known |= {name: int(values[name]) for name in ("landmarks", "landmarks_lost")}
    if result.deformation is None:
        known |= {"folds_percent": 0.0, "own_folds_percent": 0.0}
    else:
        known["own_folds_percent"] = result.deformation.own_folds_percent
    challenge = extras.challenge(result)
    return replace(
        row,
        **known,  # type: ignore[arg-type]
        seconds=seconds,
        dense_tre_mean_mm=_dense_error_mm(case, result.transform),
        segmentation_dsc_mr=dsc(result.mr_gland.mask, case.mr_gland),
        segmentation_dsc_trus=dsc(result.trus_gland.mask, case.trus_gland),
        segmenter_mr=result.mr_gland.model or "",
        segmenter_trus=result.trus_gland.model or "",
        model=(result.deformation.model or "") if result.deformation else "",
        warnings=" ".join(dict.fromkeys([*row.warnings.split(), *(each.code for each in result.warnings)])),
        extras=extras.columns(result, rows, challenge),
        labels=label_rows(case, result, rows),
        challenge=challenge,
    )


def _case_landmarks(case: LoadedCase) -> tuple[Landmarks, Landmarks]:
    """Landmarks of both sides; points as they were given."""
    if case.points is not None:
        return case.points.mr, case.points.trus
    return landmarks_of(case.mr_labels, case.label_names), landmarks_of(case.trus_labels, case.label_names)


def _dense_error_mm(case: LoadedCase, transform: sitk.Transform) -> float:
    """Mean distance (MR space) to the true place over the reference TRUS gland; nan without a truth."""
    if case.truth is None:
        return np.nan
    points = mask_points_mm(case.trus_gland)
    apart = transform_points_mm(transform, points) - transform_points_mm(case.truth, points)
    return float(np.linalg.norm(apart, axis=1).mean())


def evaluate(
    cases: Sequence[Case],
    methods: Sequence[str],
    *,
    masks: Masks,
    settings: Settings,
    on_row: Callable[[MetricsRow], None] | None = None,
    measures: Collection[MeasureSet] = (),
    on_case: OnCase | None = None,
) -> list[MetricsRow]:
    """Every method on every case. A case that fails has a row with its error and stops nothing.

    `measures` names sets of measures to take besides, see `Extras`. `on_case` is given every case that could
    be loaded when its last method has run, with the results of those that did not fail, by method.
    """
    rows = []
    for case in cases:
        for row in _case_rows(
            case, methods, masks=masks, settings=settings, measures=measures, on_case=on_case
        ):
            rows.append(row)
            if on_row is not None:
                on_row(row)
    return rows


def _case_rows(
    case: Case,
    methods: Sequence[str],
    *,
    masks: Masks,
    settings: Settings,
    measures: Collection[MeasureSet],
    on_case: OnCase | None,
) -> Iterator[MetricsRow]:
    """The rows of one case, each with the error where the case cannot even be loaded."""
    try:
        loaded = load_case(case)
    except InputError as error:
        for method in methods:
            yield MetricsRow(case.name, method, masks, patient=case.patient, error=str(error))
        return
    results: dict[str, Registration] = {}
    yield from evaluate_case(
        loaded,
        methods,
        masks=masks,
        settings=settings,
        measures=measures,
        # Otherwise none is kept beyond its turn.
        on_result=None if on_case is None else results.__setitem__,
    )
    if on_case is not None:
        on_case(loaded, results)


def unpaired_by_case(rows: Sequence[MetricsRow]) -> dict[str, tuple[str, ...]]:
    """The sentences about landmarks that one modality lacks, of each case."""
    return {row.case: row.unpaired for row in rows}


def metrics_csv(rows: Sequence[MetricsRow]) -> str:
    """The rows as CSV text; figures with four digits, nan as an empty field. Extras come last."""
    buffer = io.StringIO()
    names = _columns()
    extras = list(dict.fromkeys(name for row in rows for name in row.extras))
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*names, *extras])
    for row in rows:
        values = [getattr(row, name) for name in names] + [row.extras.get(name, np.nan) for name in extras]
        writer.writerow([_shown(value) for value in values])
    return buffer.getvalue()


def all_labels_csv(rows: Sequence[MetricsRow]) -> str:
    """The labels of all rows as CSV text, see `LabelRow`."""
    return labels_csv(
        (row.case, row.patient, row.method, row.masks, label) for row in rows for label in row.labels
    )


def _columns() -> list[str]:
    return [each.name for each in fields(MetricsRow) if each.metadata.get("column", True)]


def _shown(value: object) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.4f}"
    return str(value)
