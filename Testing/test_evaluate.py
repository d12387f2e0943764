"""Evaluation on a data set with known answers, and the statistics of a cohort."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import tiny_networks
import torch
from cases import ShiftNetwork, ThresholdNetwork, install
from dataset_case import TRUS_SHIFT_MM, write_dataset

from MRTRUSRegistrationLib.cli import add_plugins
from MRTRUSRegistrationLib.deformable import SynSettings
from MRTRUSRegistrationLib.models import Preprocessing
from MRTRUSRegistrationLib.pipeline import Settings
from MRTRUSRegistrationLib.rigid import RigidSettings
from MRTRUSTraining.data.cases import find_cases
from MRTRUSTraining.evaluation.dense_parts import parts_of
from MRTRUSTraining.evaluation.evaluate import (
    MetricsRow,
    evaluate,
    metrics_csv,
)
from MRTRUSTraining.evaluation.statistics import summarise
from MRTRUSTraining.evaluation.summary import summary_markdown

CONTRACT = [
    "case",
    "method",
    "masks",
    "dsc",
    "hd95_mm",
    "tre_rms_mm",
    "tre_mean_mm",
    "landmarks",
    "landmarks_lost",
    "folds_percent",
    "seconds",
]
# Coarser than the defaults: what is tested here is the bookkeeping.
SETTINGS = Settings(
    device="cpu",
    rigid=RigidSettings(spacing_mm=3.0),
    syn=SynSettings(spacing_mm=3.0, syn_iterations=(20, 10)),
)


def run(folder: Path, methods: list[str], names: list[str]) -> list[MetricsRow]:
    return evaluate(find_cases(folder, "muregpro", names), methods, masks="reference", settings=SETTINGS)


# --- figures -------------------------------------------------------------------------------------------


def test_figures_of_a_known_shift(tmp_path: Path) -> None:
    """TRUS is MR shifted by 2 mm: the data set's own start is 2 mm off, matched centroids are right."""
    write_dataset(tmp_path, "muregpro", ("a", "b"))
    rows = run(tmp_path, ["initial", "centroid"], ["a", "b"])
    assert [(row.case, row.method) for row in rows] == [
        ("a", "initial"),
        ("a", "centroid"),
        ("b", "initial"),
        ("b", "centroid"),
    ]
    start, matched = rows[0], rows[1]
    shift = float(np.linalg.norm(TRUS_SHIFT_MM))
    for value in (start.tre_rms_mm, start.tre_mean_mm, start.gland_centroid_mm):
        assert value == pytest.approx(shift, abs=0.25)
    assert start.dsc == pytest.approx(1 - 0.75 * shift / 17, abs=0.02)  # of an ellipsoid moved along its axis
    assert matched.tre_rms_mm < 0.3
    assert matched.dsc > 0.96
    for row in rows:
        assert (row.masks, row.landmarks, row.landmarks_lost) == ("reference", 2, 0)
        assert row.folds_percent == 0
        assert 0 < row.seconds < 60
        assert row.segmentation_dsc_mr == row.segmentation_dsc_trus == 1.0
        assert row.segmenter_mr == row.segmenter_trus == ""
        assert row.error == ""


def test_true_error_of_a_data_set_that_knows_the_truth(tmp_path: Path) -> None:
    """The truth is 2 mm to the right, so the data set's own start is 2 mm off everywhere in the gland."""
    write_dataset(tmp_path, "muregpro", ("a", "b"))
    (tmp_path / "transforms").mkdir()
    truth = sitk.TranslationTransform(3, [-each for each in TRUS_SHIFT_MM])
    sitk.WriteTransform(truth, str(tmp_path / "transforms" / "a.h5"))
    rows = run(tmp_path, ["initial", "centroid"], ["a", "b"])
    assert rows[0].dense_tre_mean_mm == pytest.approx(2.0, abs=1e-6)
    assert rows[1].dense_tre_mean_mm < 0.05
    assert np.isnan(rows[2].dense_tre_mean_mm), "case b has no truth"
    lines = list(csv.DictReader(metrics_csv(rows).splitlines()))
    assert [line["dense_tre_mean_mm"] for line in lines][::2] == ["2.0000", ""]


@pytest.mark.slow
def test_parts_of_the_true_error_that_a_global_map_would_mend(tmp_path: Path) -> None:
    """The start is 2 mm off and not turned; a truth that turns by 10° is what the angle says."""
    write_dataset(tmp_path, "muregpro", ("a", "b"))
    (tmp_path / "transforms").mkdir()
    turn = sitk.Euler3DTransform([0.0] * 3, 0.0, 0.0, np.radians(10), [1.0, 2.0, 3.0])
    sitk.WriteTransform(turn, str(tmp_path / "transforms" / "a.h5"))
    rows = evaluate(
        find_cases(tmp_path, "muregpro", ["a", "b"]),
        ["initial"],
        masks="reference",
        settings=SETTINGS,
        measures=["dense"],
    )
    found = rows[0].extras
    assert found["dense_rotation_deg"] == pytest.approx(10, abs=1e-3)
    assert found["dense_after_translation_mm"] > 1
    assert max(found["dense_after_rigid_mm"], found["dense_after_affine_mm"]) < 1e-6
    assert np.isnan(rows[1].extras["dense_rotation_deg"]), "case b has no truth"


def test_parts_of_an_error_that_is_a_shear_and_a_bend() -> None:
    points = np.random.default_rng(0).normal(0, 15, (500, 3))
    sheared = points + np.outer(points[:, 0], [0.0, 0.2, 0.0]) + [1.0, 2.0, 3.0]
    parts = parts_of(sheared, points)
    assert parts.after_translation_mm > parts.after_rigid_mm > 0.5
    assert parts.after_affine_mm < 1e-9
    assert parts.rotation_deg == pytest.approx(5.7, abs=0.5), "half of a shear of 0.2 is a turn"
    bent = points + np.outer(points[:, 0] ** 2 / 100, [0.0, 0.0, 1.0])
    assert parts_of(bent, points).after_affine_mm > 1


class ShiftWhereSeen(torch.nn.Module):
    """Two voxels along the last axis where the moving image shows anything, else nothing."""

    def forward(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        zero = torch.zeros_like(fixed)
        return torch.cat([zero, zero, zero + 2 * (moving.amax() > 0).float()], dim=1)


@pytest.mark.slow
def test_the_zeroed_control_shows_the_network_images_without_content(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", "muregpro", ("a",))
    models = tmp_path / "models"
    for modality in ("MR", "TRUS"):
        install(models, ThresholdNetwork(), name=f"gland-{modality}", task="segmentation", modality=modality)
    install(models, ShiftWhereSeen(), name="seen", task="registration", modality="MR-TRUS")
    settings = Settings(device="cpu", rigid=RigidSettings(spacing_mm=3.0), models=models)
    rows = evaluate(
        find_cases(tmp_path / "data", "muregpro"),
        ["seen+zeroed", "rigid", "seen", "seen+zeroed"],
        masks="predicted",
        settings=settings,
    )
    assert "needs masks" in rows[0].error
    rigid, seen, blind = rows[1:]
    assert [row.method for row in rows] == ["seen+zeroed", "rigid", "seen", "seen+zeroed"]
    assert [row.error for row in rows[1:]] == ["", "", ""]
    assert seen.displacement_max_mm == pytest.approx(2 * 2.0, abs=0.2)
    assert blind.displacement_max_mm == 0
    assert (blind.dsc, blind.tre_rms_mm) == (rigid.dsc, rigid.tre_rms_mm)
    assert abs(seen.tre_rms_mm - rigid.tre_rms_mm) > 1
    # Its masks are those that the methods before it found in the real images.
    assert blind.segmentation_dsc_trus == rigid.segmentation_dsc_trus > 0.9
    for row in rows[1:]:
        assert (row.segmenter_mr, row.segmenter_trus) == ("gland-MR", "gland-TRUS")


def test_the_zeroed_control_may_come_first_with_reference_masks(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", "muregpro", ("a",))
    models = tmp_path / "models"
    network = ShiftNetwork((0.0, 0.0, 0.0))
    install(models, network, name="still", task="registration", modality="MR-TRUS")
    settings = Settings(device="cpu", rigid=RigidSettings(spacing_mm=3.0), models=models)
    cases = find_cases(tmp_path / "data", "muregpro")
    (row,) = evaluate(cases, ["still+zeroed"], masks="reference", settings=settings)
    assert row.error == ""
    assert row.dsc > 0.9


@pytest.mark.slow
def test_syn_takes_the_rigid_stage_of_the_methods_before_it(tmp_path: Path) -> None:
    write_dataset(tmp_path, "muregpro", ("a",))
    rows = run(tmp_path, ["centroid", "rigid", "syn"], ["a"])
    alone = run(tmp_path, ["syn"], ["a"])[0]
    assert [row.method for row in rows] == ["centroid", "rigid", "syn"]
    for name in ("dsc", "hd95_mm", "tre_rms_mm", "jacobian_min", "displacement_max_mm"):
        assert getattr(rows[2], name) == pytest.approx(getattr(alone, name), abs=1e-9)
    assert rows[2].seconds > rows[1].seconds, "the shared stage counts for both"
    assert rows[2].dsc > 0.95
    assert [row.folds_percent for row in rows] == [row.own_folds_percent for row in rows] == [0, 0, 0]
    assert rows[2].jacobian_min > 0


@pytest.mark.slow
def test_rigid_is_the_same_before_and_after_a_network_with_a_rigid_part_of_its_own(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", "muregpro", ("a",))
    models = tmp_path / "models"
    tiny_networks.install(
        tiny_networks.Turn((0.0, 0.0, 0.2)),
        models,
        modality="MR-TRUS",
        grid_vox=(32, 32, 32),
        preprocessing=Preprocessing("LPS", (2.5, 2.5, 2.5)),
        settings={"rigid_part": True},
        name="turner",
    )
    settings = replace(SETTINGS, models=models)
    cases = find_cases(tmp_path / "data", "muregpro")
    orders = (["turner", "rigid"], ["rigid", "turner"])
    before, after = (evaluate(cases, order, masks="reference", settings=settings) for order in orders)
    assert [row.error for row in (*before, *after)] == [""] * 4
    for ours, theirs in zip(before, reversed(after), strict=True):
        assert ours.method == theirs.method
        assert (ours.dsc, ours.displacement_max_mm) == pytest.approx(
            (theirs.dsc, theirs.displacement_max_mm), nan_ok=True
        )


def test_a_case_that_cannot_be_loaded_stops_nothing(tmp_path: Path) -> None:
    write_dataset(tmp_path, "muregpro", ("a", "b", "c"))
    (tmp_path / "us_labels" / "a.nii.gz").write_bytes(b"broken")
    seen: list[str] = []
    rows = evaluate(
        find_cases(tmp_path, "muregpro"),
        ["initial", "centroid"],
        masks="reference",
        settings=SETTINGS,
        on_row=lambda row: seen.append(row.case),
    )
    assert seen == ["a", "a", "b", "b", "c", "c"]
    assert all("a.nii.gz" in row.error and np.isnan(row.dsc) for row in rows[:2])
    assert all(row.error == "" and row.dsc > 0.8 for row in rows[2:])


def test_a_method_that_fails_stops_nothing(tmp_path: Path) -> None:
    write_dataset(tmp_path, "muregpro", ("a",))
    rows = run(tmp_path, ["no-such-model", "centroid"], ["a"])
    assert "no-such-model" in rows[0].error
    assert rows[1].error == ""
    assert rows[1].dsc > 0.96


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--seed", "3000000000"), "seed 3000000000 is not between 0 and 2147483646"),
        (
            ("--methods", "cmsa+zeroed,rigid", "--masks", "predicted"),
            "needs masks: name another method before",
        ),
        (("--methods", "rigid+zeroed"), "The control rigid+zeroed is one of networks"),
        (("--methods", "vnet-mr"), "No registration model named 'vnet-mr'"),
    ],
)
def test_what_would_fail_in_every_case_is_refused_at_once(
    tmp_path: Path, run_cli, options: tuple[str, ...], message: str
) -> None:
    add_plugins()
    write_dataset(tmp_path, "muregpro", ("a",))
    given = ["--data", tmp_path, "--layout", "muregpro", "--masks", "reference", "--output", tmp_path / "out"]
    code, _, error = run_cli(["evaluate", *given, "--methods", "rigid", *options])
    assert (code, message in error) == (2, True), error
    assert not (tmp_path / "out").exists()


# --- files ---------------------------------------------------------------------------------------------


def row(case: str, method: str, tre_mm: float, *, patient: str = "", error: str = "") -> MetricsRow:
    if error:
        return MetricsRow(case, method, "reference", patient=patient or case, error=error)
    return MetricsRow(
        case,
        method,
        "reference",
        dsc=0.9,
        hd95_mm=3.0,
        tre_rms_mm=tre_mm,
        tre_mean_mm=tre_mm,
        landmarks=3,
        landmarks_lost=1,
        folds_percent=0.0,
        seconds=2.0,
        patient=patient or case,
    )


def test_table_has_the_columns_of_the_contract_first() -> None:
    rows = [row("a", "rigid", 4.56789), row("b, with comma", "rigid", np.nan)]
    lines = list(csv.DictReader(metrics_csv(rows).splitlines()))
    assert list(lines[0])[: len(CONTRACT)] == CONTRACT
    assert [line["case"] for line in lines] == ["a", "b, with comma"]
    assert lines[0]["tre_rms_mm"] == "4.5679"
    assert lines[1]["tre_rms_mm"] == ""
    assert (lines[0]["landmarks"], lines[0]["landmarks_lost"]) == ("3", "1")


def test_summary_gives_every_method_its_mean_and_interval() -> None:
    rows = [row(c, m, t) for c, m, t in [("a", "rigid", 4.0), ("b", "rigid", 6.0), ("a", "cmsa", 3.0)]]
    rows.append(row("b", "cmsa", 4.0))
    text = summary_markdown(rows, title="Two pairs", command="mrtrus evaluate")
    assert text.startswith("# Two pairs\n")
    assert "`mrtrus evaluate`" in text
    assert "| rigid | 2 |" in text
    assert "5.00 ± 1.41 [4.00, 6.00]" in text
    # Paired: −1 and −2 against rigid.
    assert "-1.50 [-2.00, -1.00]" in text
    assert "2 of 6" in text
    assert "Failed" not in text


def test_the_true_error_has_a_column_only_where_it_is_known() -> None:
    rows = [row("a", "rigid", 4.0), row("b", "rigid", 6.0)]
    head = "TRE (mean) mm | dense TRE mm | lost"
    assert head not in summary_markdown(rows, title="t", command="c")
    known = [replace(rows[0], dense_tre_mean_mm=1.5), rows[1]]
    text = summary_markdown(known, title="t", command="c")
    assert head in text
    table = [line.split(" | ") for line in text.splitlines() if line.startswith("|")]
    assert table[2][6].startswith("1.50 ± ")
    assert len(table[0]) == len(table[2])


@pytest.mark.filterwarnings("error")
def test_summary_lists_failures_and_survives_a_method_that_always_fails() -> None:
    rows = [row("a", "rigid", 4.0), row("a", "cmsa", 0, error="It broke."), row("b", "rigid", 4.0)]
    text = summary_markdown(rows, title="t", command="c")
    assert "- a, cmsa: It broke." in text
    assert "| cmsa |" not in text.split("Mean ± standard deviation")[0]
    assert " nan" not in text


# --- landmarks that one modality lacks -----------------------------------------------------------------


def evaluate_by_command(folder: Path, run_cli) -> tuple[str, list[dict[str, str]], str]:
    """What `mrtrus evaluate` says, its rows and its summary, for two methods on the cases a and b."""
    add_plugins()
    given = ["--data", folder, "--layout", "muregpro", "--masks", "reference", "--output", folder / "out"]
    code, said, _ = run_cli(["evaluate", *given, "--methods", "initial,centroid"])
    assert code == 0
    with (folder / "out" / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return said, rows, (folder / "out" / "summary.md").read_text(encoding="utf-8")


def test_a_landmark_in_one_modality_only_is_said_and_marked(tmp_path: Path, run_cli) -> None:
    write_dataset(tmp_path, "muregpro", ("a", "b"), empty_mr=(1, 2))
    said, rows, summary = evaluate_by_command(tmp_path, run_cli)
    for case in "ab":
        for channel in (1, 2):
            assert said.count(f"Landmark {channel} of case {case} is in TRUS only and is left out.") == 1
    assert "4 landmarks of 2 cases are in one modality only" in summary
    assert ["landmark_unpaired" in row["warnings"].split() for row in rows] == [True] * 4
    assert [row["landmarks"] for row in rows] == ["0"] * 4


def test_simulated_cases_that_lack_a_landmark_are_counted(tmp_path: Path, run_cli) -> None:
    write_dataset(tmp_path, "muregpro", ("a", "b"), empty_mr=(1,))
    (tmp_path / "transforms").mkdir()
    for case in "ab":
        truth = sitk.TranslationTransform(3, (-2.0, 0.0, 0.0))
        sitk.WriteTransform(truth, str(tmp_path / "transforms" / f"{case}.h5"))
    said, rows, summary = evaluate_by_command(tmp_path, run_cli)
    assert "Landmark 1" not in said
    assert said.count("2 landmarks of 2 cases are in one modality only") == 1
    assert "2 landmarks of 2 cases are in one modality only" in summary
    assert all("landmark_unpaired" in row["warnings"] for row in rows)


def test_nothing_is_said_where_every_landmark_has_its_partner(tmp_path: Path, run_cli) -> None:
    write_dataset(tmp_path, "muregpro", ("a",))
    said, rows, summary = evaluate_by_command(tmp_path, run_cli)
    assert "left out" not in said + summary
    assert not any("landmark_unpaired" in row["warnings"] for row in rows)


# --- statistics ----------------------------------------------------------------------------------------


def test_interval_of_independent_patients_is_that_of_the_normal_theory() -> None:
    values = np.random.default_rng(0).normal(5.0, 2.0, 400)
    found = summarise(values, [str(n) for n in range(400)])
    half = 1.96 * values.std(ddof=1) / 20
    assert (found.mean, found.sd, found.pairs) == (
        pytest.approx(values.mean()),
        pytest.approx(values.std(ddof=1)),
        400,
    )
    assert found.low == pytest.approx(values.mean() - half, abs=0.02)
    assert found.high == pytest.approx(values.mean() + half, abs=0.02)


def test_patients_are_resampled_not_pairs() -> None:
    """Forty patients with ten equal pairs each: as uncertain as forty values, not as four hundred."""
    per_patient = np.random.default_rng(1).normal(5.0, 2.0, 40)
    values, patients = np.repeat(per_patient, 10), np.repeat(np.arange(40).astype(str), 10)
    grouped = summarise(values, patients.tolist())
    as_forty = summarise(per_patient, [str(n) for n in range(40)])
    naive = summarise(values, [str(n) for n in range(400)])
    assert grouped.high - grouped.low == pytest.approx(as_forty.high - as_forty.low, rel=0.02)
    assert grouped.high - grouped.low > 2.5 * (naive.high - naive.low)
    assert grouped.mean == naive.mean


def test_a_patient_weighs_by_its_pairs() -> None:
    found = summarise([0.0, 1.0, 1.0, 1.0], ["a", "b", "b", "b"])
    assert found.mean == 0.75
    # Draws are aa (0), ab and ba (0.75), bb (1).
    assert (found.low, found.high) == (0.0, 1.0)


def test_pairs_without_the_figure_are_left_out() -> None:
    found = summarise([1.0, np.nan, 3.0, np.nan], ["a", "a", "b", "c"])
    assert (found.mean, found.pairs) == (2.0, 2)
    nothing = summarise([np.nan, np.nan], ["a", "b"])
    assert nothing.pairs == 0
    assert np.isnan(nothing.mean)
    assert np.isnan(summarise([2.0], ["a"]).sd)


def test_one_patient_has_no_interval() -> None:
    """However many pairs it has: resampling it would draw the same mean each time."""
    one = summarise([1.0, np.nan], ["a", "b"])
    assert (one.mean, one.pairs) == (1.0, 1)
    assert np.isnan([one.low, one.high]).all()
    assert (one.shown(2), one.shown_difference(2)) == ("1.00 ± – [–]", "+1.00 [–]")
    sweeps = summarise([1.0, 3.0], ["a", "a"])
    assert (sweeps.shown(1), sweeps.pairs) == ("2.0 ± 1.4 [–]", 2)
    assert summarise([1.0, 3.0], ["a", "b"]).shown(1) == "2.0 ± 1.4 [1.0, 3.0]"


def test_same_seed_same_interval() -> None:
    values = np.random.default_rng(2).normal(size=30).tolist()
    patients = [str(n) for n in range(30)]
    assert summarise(values, patients) == summarise(values, patients)
    assert summarise(values, patients, seed=1) != summarise(values, patients)
