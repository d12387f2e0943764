"""The tables: paired test, text, and a whole table of made-up runs through the pipeline."""

from __future__ import annotations

import csv
import io
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_case import write_dataset
from row_case import registration_content, tiny_data
from scipy.stats import wilcoxon
from tiny_networks import Brightness, install

from MRTRUSRegistrationLib.cli_support import run_app
from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.models import Preprocessing, read_card
from MRTRUSTraining.cli import app
from MRTRUSTraining.data.cases import find_part
from MRTRUSTraining.evaluation.evaluate import MetricsRow
from MRTRUSTraining.networks.named import build_registration_network, build_segmenter
from MRTRUSTraining.paper_b.measures import SegmentationFigures
from MRTRUSTraining.row import Place, Published, Row, find_row, row_from
from MRTRUSTraining.run import Run, write_record
from MRTRUSTraining.sources import Sources
from MRTRUSTraining.table import TableRequest, make_table
from MRTRUSTraining.table_text import COLUMNS, line_of, paired_p, remarks_on, table_csv, table_markdown

PATIENTS = ("p", "p", "q", "r", "s", "t")


# --- statistics ------------------------------------------------------------------------------------------


def test_the_paired_test_counts_a_patient_once() -> None:
    values, reference = np.array([1.0, 3.0, 2.5, 4.0, 1.5, 0.5]), np.array([2.0, 4.5, 5.0, 4.5, 3.0, 4.5])
    means = [-1.25, -2.5, -0.5, -1.5, -4.0]
    assert paired_p(values, reference, PATIENTS) == pytest.approx(wilcoxon(means).pvalue)
    # All five patients are better: the exact test cannot give less.
    assert paired_p(values, reference, PATIENTS) == pytest.approx(2 / 2**5)


def test_the_paired_test_of_nothing() -> None:
    same = np.arange(6.0)
    assert paired_p(same, same, PATIENTS) == 1.0
    assert np.isnan(paired_p(same * np.nan, same, PATIENTS))
    gone = same.copy()
    gone[:2] = np.nan
    other = same + np.array([9, 9, 1, 2, 3, 4])
    assert paired_p(gone, other, PATIENTS) == pytest.approx(2 / 2**4), "patient p has no figure"


# --- text ------------------------------------------------------------------------------------------------


def lines() -> list:
    rigid = {"dsc": [0.8] * 6, "tre_rms_mm": [6.0, 5.0, 4.0, 7.0, 6.0, 5.0]}
    ours = {"dsc": [0.9] * 6, "tre_rms_mm": [5.0, 4.0, 3.5, np.nan, 4.5, 3.0]}
    figures = {"rigid": rigid, "ours-2": ours}
    published = Published(dsc=0.859, dsc_sd=0.035, tre_mm=4.65, tre_sd_mm=1.76)
    places = {
        "rigid": Place("1", 1, "Rigid"),
        "ours-2": Place("1", 2, "Ours (2)", published),
        "ours-1": Place("1", 3, "Ours (1)", published),
    }
    return [
        line_of(name, place, "1", figures=figures, patients=PATIENTS, training="9 steps")
        for name, place in places.items()
    ]


def test_a_line_has_published_and_own_figures_side_by_side() -> None:
    page = table_markdown("1", lines(), title="Table 1", command="mrtrus-train table 1")
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert rows[0].count("|") == rows[1].count("|") == 11
    rigid, ours, untrained = rows[1:4]
    assert rigid.startswith("| Rigid | – | 0.800 ± 0.000 [0.800, 0.800] | – | – | – | 5.50 ± 1.05 [")
    better = "+0.100 [+0.100, +0.100] | 0.062"
    assert f"| 0.859 ± 0.035 | 0.900 ± 0.000 [0.900, 0.900] | {better} | 4.65 ± 1.76 | 4.00 ± 0.79 [" in ours
    assert " (5 of 6) | -1.20 [" in ours
    assert ours.endswith("] | 0.125 | 9 steps |")
    assert untrained == "| Ours (1) | 0.859 ± 0.035 | – | – | – | 4.65 ± 1.76 | – | – | – | 9 steps |"


def test_figures_of_one_patient_have_no_interval() -> None:
    figures = {"rigid": {"dsc": [0.8, 0.9]}, "ours": {"dsc": [0.9, 0.9]}}
    place = Place("1", 1, "Ours")
    line = line_of("ours", place, "1", figures=figures, patients=["a", "a"], training="9 steps")
    page = table_markdown("1", [line], title="Table 1", command="mrtrus-train table 1")
    assert "| 0.900 ± 0.000 [–] | +0.050 [–] |" in page
    table = table_csv("1", [line])
    assert "nan" not in page + table
    row = next(csv.DictReader(table.splitlines()))
    assert (row["dsc_mean"], row["dsc_low"], row["dsc_minus_rigid_high"]) == ("0.9000", "", "")


def test_a_figure_that_rigid_has_not_is_not_compared_with_it() -> None:
    figures = {"rigid": {"dsc": [0.8] * 6}, "rern": {"dsc": [0.7] * 6, "accuracy": [0.9] * 6}}
    place = find_row("rern").place("B")
    line = line_of("rern", place, "B", figures=figures, patients=PATIENTS, training="")
    head = table_markdown("B", [line], title="", command="").splitlines()[4]
    assert head.startswith(
        "| row | DSC published | ours | to rigid | p | accuracy published | ours | precision"
    )


def test_masks_are_not_compared_with_a_registration() -> None:
    figures = {"rigid": {"dsc": [0.8] * 6}, "paper-b-mr-2d": {"dsc": [0.9] * 6}}
    place = find_row("paper-b-mr-2d").place("B")
    line = line_of(
        "paper-b-mr-2d", place, "B", figures=figures, patients=PATIENTS, training="", registers=False
    )
    assert line.summaries["dsc"].mean == pytest.approx(0.9)
    assert (line.differences, line.p_values) == ({}, {})


def test_the_csv_has_a_column_for_every_figure() -> None:
    rows = list(csv.DictReader(io.StringIO(table_csv("1", lines()))))
    assert [row["row"] for row in rows] == ["rigid", "ours-2", "ours-1"]
    assert (rows[1]["dsc_published"], rows[1]["dsc_mean"], rows[1]["dsc_pairs"]) == ("0.8590", "0.9000", "6")
    assert (rows[1]["tre_rms_mm_mean"], rows[1]["tre_rms_mm_pairs"]) == ("4.0000", "5")
    assert float(rows[1]["tre_rms_mm_p_vs_rigid"]) == 0.125
    assert float(rows[1]["tre_rms_mm_minus_rigid_mean"]) == pytest.approx(-1.2)
    assert float(rows[1]["tre_rms_mm_minus_rigid_high"]) < -0.5
    assert (rows[0]["dsc_p_vs_rigid"], rows[2]["dsc_mean"]) == ("", "")
    low, high = float(rows[0]["tre_rms_mm_low"]), float(rows[0]["tre_rms_mm_high"])
    assert low < 5.5 < high


def test_smoothed_fields_and_lost_landmarks_stand_below_the_table() -> None:
    row = MetricsRow("a", "rigid", "predicted", landmarks=3, own_folds_percent=0.0)
    assert remarks_on([row, replace(row, method="cmsa", warnings="rotation_limited")]) == []
    found = [
        replace(row, method="rern", warnings="low_overlap field_smoothed", own_folds_percent=12.0),
        replace(row, method="rern", case="b", own_folds_percent=1.0, landmarks_lost=2),
        row,
    ]
    smoothed, lost = remarks_on(found)
    assert smoothed.endswith("in the mean over all pairs: rern 1 (6.50 %).")
    assert lost.endswith("no error: rern 2.")
    page = table_markdown("1", lines(), title="T", command="c", remarks=[smoothed, lost])
    assert page.index("| row") < page.index(smoothed) < page.index(lost) < page.index("Ours: mean")


def test_tables_one_and_two_have_the_same_columns() -> None:
    assert COLUMNS["1"] == COLUMNS["2"]


def test_table_b_has_the_five_figures_of_a_segmentation() -> None:
    names = [field.name for field in fields(SegmentationFigures)]
    assert [column.figure for column in COLUMNS["B"]][:5] == names
    figures = {"paper-b-mr-2d": {name: [0.5] * 6 for name in names}}
    place = find_row("paper-b-mr-2d").place("B")
    line = line_of("paper-b-mr-2d", place, "B", figures=figures, patients=PATIENTS, training="")
    row = next(csv.DictReader(io.StringIO(table_csv("B", [line]))))
    assert (row["accuracy_published"], row["precision_published"]) == ("0.9914", "")
    assert (row["precision_mean"], row["tre_mean_mm_mean"]) == ("0.5000", "")


# --- a whole table ---------------------------------------------------------------------------------------


def made_up_run(row: Row, data: Path, folder: Path) -> None:
    """A run folder with the weights that the network starts with, which move nothing."""
    torch.manual_seed(0)
    network = build_registration_network(row.method.network, **row.method.options)  # type: ignore[union-attr]
    write_record(Run(row, Sources(data), folder))
    record = {"network": network.state_dict(), "step": 1, "figures": {"score": 0.0, "dsc": 0.5}}
    torch.save({**record, "row": row.identity}, folder / "best.pt")


@pytest.fixture
def bright_segmenters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny data's glands are bright; they are segmented by that."""
    for modality in ("MR", "TRUS"):
        options = {"grid_vox": (32, 32, 32), "preprocessing": Preprocessing("LPS", (1.5, 1.5, 1.5))}
        install(Brightness(), tmp_path / "installed", modality=modality, name=modality.lower(), **options)
    monkeypatch.setenv("MRTRUS_MODELS", str(tmp_path / "installed"))


@pytest.mark.slow
@pytest.mark.usefixtures("bright_segmenters")
def test_table_two_runs_every_row_as_its_card_says(tmp_path: Path) -> None:
    data, runs = tiny_data(tmp_path / "data"), tmp_path / "runs"
    write_dataset(data, "mrus", ("d",), empty_mr=(2,))
    small = {"grid_vox": (32, 32, 32)}
    for name in ("without-rigid", "ours-2"):
        row = find_row(name)
        made_up_run(replace(row, method=replace(row.method, **small)), data, runs / name)
    cases = find_part(data, "mrus", "val")
    said: list[str] = []
    request = TableRequest("2", runs, cases, tmp_path / "out", also=("centroid",))
    made = make_table(request, command="mrtrus-train table 2", report=said.append)
    assert made.failed == ()
    rows = {row["row"]: row for row in csv.DictReader(made.csv.open(encoding="utf-8"))}
    assert list(rows) == ["without-rigid", "without-cmsa", "without-srml", "ours-2", "centroid"]
    assert rows["without-cmsa"]["training"] == "not trained"
    # The TRUS lies 2 mm beside the MR; only what aligns first finds it.
    assert float(rows["without-rigid"]["tre_rms_mm_mean"]) == pytest.approx(2.0, abs=0.1)
    assert float(rows["ours-2"]["tre_rms_mm_mean"]) == pytest.approx(0.0, abs=0.5)
    assert float(rows["centroid"]["dsc_mean"]) > 0.95
    assert "Full" in made.markdown.read_text(encoding="utf-8")
    assert len(said) == 2 * 4 + 1
    assert said[-1] == "Landmark 2 of case d is in TRUS only and is left out."
    assert read_card(tmp_path / "out" / "models" / "without-rigid.json").settings["alignment"] == "initial"


def test_a_folder_of_another_row_is_refused(tmp_path: Path) -> None:
    data, runs = tiny_data(tmp_path / "data"), tmp_path / "runs"
    made_up_run(row_from(registration_content(), "row"), data, runs / "ours-2")
    request = TableRequest("2", runs, find_part(data, "mrus", "val"), tmp_path / "out")
    with pytest.raises(InputError, match="a run of the row tiny"):
        make_table(request, command="")


def test_a_folder_of_runs_that_is_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tiny_data(tmp_path / "data")
    given = ["--data", str(data), "--runs", str(tmp_path / "nowhere"), "--output", str(tmp_path / "out")]
    assert run_app(app, ["table", "1", *given]) == 2
    said = capsys.readouterr()
    assert "nowhere does not exist" in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--device", "gpu"), "device 'gpu' is not known"),
        (("--also", "foo"), "method 'foo' is not known"),
        (("--also", "foo+zeroed"), "method 'foo' is not known"),
        (("--also", "rigid+zeroed"), "rigid+zeroed is one of networks"),
        (("--also", "vnet-mr"), "No registration model named 'vnet-mr'"),
        (("--seed", "-1"), "seed -1 is not between"),
        (("--also", "cmsa", "V"), "no installed segmenter 'cmsa'"),
    ],
)
def test_what_no_case_could_be_compared_with_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: tuple[str, str], message: str
) -> None:
    data = tiny_data(tmp_path / "data")
    (tmp_path / "runs").mkdir()
    given = ["--data", str(data), "--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "out")]
    *option, table = option if option[-1] == "V" else (*option, "1")
    assert run_app(app, ["table", table, *given, *option]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("bright_segmenters")
def test_a_case_that_failed_decides_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tiny_data(tmp_path / "data")
    for name in ("c", "d"):
        (data / "moving_images" / f"{name}.nii.gz").write_bytes(b"no image")
    (tmp_path / "runs").mkdir()
    given = ["--data", str(data), "--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "out")]
    assert run_app(app, ["table", "1", *given, "--also", "centroid"]) == 3
    assert "2 case(s) failed: c, d; see" in capsys.readouterr().err
    assert (tmp_path / "out" / "table1.md").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("bright_segmenters")
def test_the_table_of_segmenters_registers_nothing(tmp_path: Path) -> None:
    data, runs = tiny_data(tmp_path / "data"), tmp_path / "runs"
    row = find_row("vnet-official-mr")
    torch.manual_seed(0)
    network = build_segmenter(row.method.network, widths=(2,) * 5)  # type: ignore[union-attr]
    small = replace(row, method=replace(row.method, options={"widths": (2,) * 5}, window_vox=(32, 32, 32)))
    write_record(Run(small, Sources(data), runs / row.name))
    record = {"network": network.state_dict(), "step": 1, "figures": {"score": 0.0, "dsc_real": 0.5}}
    torch.save({**record, "row": small.identity}, runs / row.name / "best.pt")
    (data / "moving_images" / "d.nii.gz").write_bytes(b"no image")
    said: list[str] = []
    request = TableRequest("V", runs, find_part(data, "mrus", "val"), tmp_path / "out", also=("mr", "trus"))
    made = make_table(request, command="mrtrus-train table V", report=said.append)
    assert made.failed == ("d",)
    rows = {row["row"]: row for row in csv.DictReader(made.csv.open(encoding="utf-8"))}
    assert list(rows) == ["vnet-official-mr", "vnet-official-trus", "mr", "trus"]
    assert (rows["vnet-official-trus"]["training"], rows["mr"]["training"]) == ("not trained", "installed")
    assert rows["vnet-official-mr"]["dsc_published"] == "0.8860"
    assert all(float(rows[name]["dsc_mean"]) > 0.9 for name in ("mr", "trus"))
    assert [rows[name]["dsc_pairs"] for name in ("vnet-official-mr", "mr")] == ["1", "1"]
    assert "d.nii.gz" in said[-1]
    assert not (tmp_path / "out" / "metrics.csv").exists()


@pytest.mark.slow
def test_an_empty_folder_of_runs_leaves_rows_untrained(tmp_path: Path) -> None:
    data, runs = tiny_data(tmp_path / "data"), tmp_path / "runs"
    runs.mkdir()
    request = TableRequest("1", runs, find_part(data, "mrus", "val")[:1], tmp_path / "out")
    made = make_table(request, command="")
    assert "not trained" in made.markdown.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_row_is_exported_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, runs = tiny_data(tmp_path / "data"), tmp_path / "runs"
    made_up_run(find_row("segmentation-based"), data, runs / "segmentation-based")
    models = tmp_path / "models"
    arguments = ["export", "segmentation-based", "--run", str(runs), "--output", str(models)]
    assert run_app(app, [*arguments, "--note", "made up"]) == 0
    assert str(models / "segmentation-based.json") in capsys.readouterr().out
    card = read_card(models / "segmentation-based.json")
    assert (card.settings["inputs"], card.provenance["note"]) == ("images+masks", "made up")
    assert {path.suffix for path in models.iterdir()} == {".json", ".pt", ".pt2"}
    assert run_app(app, ["export", "ours-2", "--run", str(runs), "--output", str(models)]) == 2
    assert "best.pt" in capsys.readouterr().err
