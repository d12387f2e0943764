"""The reader study from its CSV files to its tables, report and forms."""

import csv
import io
import json
import re
import shutil
import subprocess
import warnings
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import typer
from matplotlib.figure import Figure
from matplotlib.text import Text

from MRTRUSRegistrationLib.cli_support import run_app
from MRTRUSRegistrationLib.errors import InputError
from MRTRUSTraining import reader_study as package
from MRTRUSTraining.reader_study.accuracy import curves as roc_curves
from MRTRUSTraining.reader_study.command import made_up_study, reader_form, reader_study
from MRTRUSTraining.reader_study.figures import confidence_figure, rendered, roc_figure
from MRTRUSTraining.reader_study.form import CaseList, Plan, form_html, read_cases, write_forms
from MRTRUSTraining.reader_study.made_up import CASES, made_up_csv
from MRTRUSTraining.reader_study.report import FILES, Results, Settings, analyse, pictures, report_html
from MRTRUSTraining.reader_study.study import Reading, Reference, Sitting, Study, read_study
from MRTRUSTraining.reader_study.table import Column, Table, p_text

SHIPPED = Path(package.__file__).with_name("made_up_study.csv")
HEADER = "case,reader,condition,t2_score,confidence,laterality,reference_pirads,biopsy_laterality,gleason\n"


def write(folder: Path, text: str, name: str = "scores.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def command(function: Callable[..., None], *arguments: object) -> int:
    app = typer.Typer(add_completion=False)
    app.command()(function)
    return run_app(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def made_up() -> Results:
    return analyse(read_study([SHIPPED]))


# ---- reading


def test_reads_what_is_written(tmp_path: Path) -> None:
    text = (
        HEADER
        + "P1,a,original,4,6,Left,5,left,3+4\nP1,a,registered,5.0,,bilateral,,,\nP2,a,trus,,,none,2,,\n"
    )
    study = read_study([write(tmp_path, text)])
    assert study.readings == (
        Reading("P1", Sitting("a", "original"), 4, 6, "left"),
        Reading("P1", Sitting("a", "registered"), 5, None, "bilateral"),
        Reading("P2", Sitting("a", "trus"), None, None, "none"),
    )
    assert study.references == {"P1": Reference(5, "left", "3+4"), "P2": Reference(2)}
    assert [study.reference(case).positive for case in ("P1", "P2", "P3")] == [True, False, None]
    assert [study.reference(case).grade_group for case in ("P1", "P2")] == [2, None]
    assert study.sittings("confidence") == (Sitting("a", "original"),)
    assert study.reader_pairs("t2_score") == [(Sitting("a", "original"), Sitting("a", "registered"))]


def test_spreadsheet_dialects_read_alike(tmp_path: Path) -> None:
    text = HEADER + "P1,a,original,4,6,left,5,left,3+4\n"
    plain = read_study([write(tmp_path, text)])
    for name, changed in {
        "semicolons.csv": text.replace(",", ";"),
        "tabs.csv": text.replace(",", "\t"),
        "mark.csv": "\ufeff" + text.replace("\n", "\r\n"),
        "blank.csv": "\n" + text + ",,,,,,,,\n\n",
        "upper.csv": text.replace("case,reader", "Case, Reader"),
        "setting.csv": "sep=;\r\n" + text.replace(",", ";"),
        "decimal commas.csv": text.replace(",", ";").replace(";4;", ";4,0;"),
        "tabs above.csv": "\t\t\n" + text,
        "empty columns.csv": text.replace("\n", ",,\n"),
    }.items():
        assert read_study([write(tmp_path, changed, name)]) == plain, name


def test_comments_are_kept_and_mark_a_made_up_study(tmp_path: Path) -> None:
    body = HEADER + "P1,a,original,4,6,left,5,left,3+4\n"
    study = read_study([write(tmp_path, '# one, two,,\n"# MADE-UP STUDY, really",,,\n' + body)])
    assert study.comments == ("one, two", "MADE-UP STUDY, really")
    assert study.made_up
    for own in ("# made-up study of mine\n", "# Made up, for a course\n"):
        assert read_study([write(tmp_path, own + body)]).made_up
    for real in ("# real\n", "# These data are not made-up: real readings\n"):
        assert not read_study([write(tmp_path, real + body)]).made_up


def test_comments_may_hold_anything_but_cases_are_none(tmp_path: Path) -> None:
    row = "P1,a,original,4,6,left,5,left,3+4\n"
    text = '#made,"up" x\n#\n' + HEADER + row + '# odd "quotes\n' + row.replace("P1", "#2")
    study = read_study([write(tmp_path, text)])
    assert study.comments == ('made,"up" x', 'odd "quotes')
    assert study.cases == ("P1", "#2")


def test_a_quoted_cell_may_span_lines(tmp_path: Path) -> None:
    noted = HEADER.replace("\n", ",note\n") + 'P1,a,original,4,6,left,5,left,3+4,"one\n# two\nthree"\n'
    assert read_study([write(tmp_path, noted)]).comments == ()
    with pytest.raises(InputError, match="row 3, column t2_score"):
        read_study([write(tmp_path, noted + "P2,a,original,9,6,left,5,left,3+4,\n")])


def test_forms_of_unicode_are_one_name(tmp_path: Path) -> None:
    text = HEADER + "P1,m\u00fcller,original,4,6,left,5,left,3+4\nP2,mu\u0308ller,original,2,3,left,2,,\n"
    assert read_study([write(tmp_path, text)]).readers == ("m\u00fcller",)


def test_references_may_stand_in_their_own_file(tmp_path: Path) -> None:
    scores = write(tmp_path, "case,reader,condition,t2_score\nP1,a,original,4\nP2,a,original,2\n")
    truth = write(tmp_path, "case,reference_pirads,gleason\nP2,3,benign\nP1,5,4+5\nP9,2,\n", "truth.csv")
    for order in ([scores, truth], [truth, scores]):
        study = read_study(order)
        assert study.cases == ("P1", "P2")
        assert study.reference("P1") == Reference(5, None, "4+5")
        assert study.reference("P2").grade_group == 0


def test_references_of_other_cases_are_named(tmp_path: Path) -> None:
    scores = write(tmp_path, "case,reader,condition,t2_score\n01,a,original,4\n02,a,original,2\n")
    truth = write(tmp_path, "case,reference_pirads\n1,5\n2,3\n", "truth.csv")
    with pytest.raises(
        InputError, match=r"no reference belongs .* references of 1, 2 and readings of 01, 02"
    ):
        read_study([scores, truth])
    truth = write(tmp_path, "case,reference_pirads\n01,5\n2,3\n", "truth.csv")
    found = analyse(read_study([scores, truth])).cautions
    assert any("1 of 2 cases have no reference PI-RADS" in text and "(02)" in text for text in found)
    assert any(text.startswith("References of cases that nobody read are left out: 2.") for text in found)
    unfilled = write(tmp_path, "case,reference_pirads\n1,\n2,\n", "truth.csv")
    assert not any("nobody read" in text for text in analyse(read_study([scores, unfilled])).cautions)


ROW = "P1,a,original,4,6,left,5,left,3+4\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            HEADER + ROW + "P2,a,original,6,6,left,5,left,3+4\n",
            r"row 3, column t2_score: '6' is not .* 1 to 5",
        ),
        (
            "# note\n\n" + HEADER + ROW.replace(",6,", ",6.5,"),
            r"row 4, column confidence: '6.5' is not .* 1 to 7",
        ),
        (
            HEADER + ROW.replace("left,5", "links,5"),
            r"row 2, column laterality: 'links' is none of left, right",
        ),
        (HEADER + ROW.replace(",5,", ",0,"), r"column reference_pirads: '0' is not a whole number"),
        (HEADER + ROW.replace("3+4", "2+2"), r"column gleason: '2\+2' is none of"),
        (
            HEADER + ROW.replace("3+4", "benign"),
            r"column gleason: benign and biopsy_laterality left of case P1",
        ),
        (HEADER + ROW.replace("P1", ""), r"row 2, column case: the cell is empty"),
        (HEADER + ROW.replace(",a,", ", ,"), r"row 2, column reader: the cell is empty"),
        (HEADER + ROW + ROW, r"row 3, column case: case P1 \(a, original\) stands already in row 2"),
        (
            HEADER + ROW + ROW.replace("original", "x").replace(",5,", ",2,"),
            r"row 3, .*: 2 contradicts 5 in an",
        ),
        (HEADER.replace("t2_score", "t2"), r"the column 't2' is not known; the columns are case"),
        (HEADER.replace("confidence", "t2_score"), r"the column 't2_score' stands twice"),
        (HEADER.replace("condition,", ""), r"the column condition is missing"),
        ("case,reader,condition,gleason\nP1,a,b,\n", r"no column t2_score, confidence, laterality"),
        (HEADER + "P1,a,original,4,6,left,5,left,3+4,extra\n", r"row 2 has 10 cells where the header has 9"),
        (HEADER, r"no readings"),
        ("case,gleason\nP1,3+4\n", r"no readings"),
        (HEADER + ROW.replace(",4,", f",{'9' * 5000},"), r"t2_score: '9+\.\.\.9+' is not a whole number"),
        (HEADER + ROW + ROW.replace(",a,", ",A,"), r"the readers 'a' and 'A' differ in upper and lower case"),
        (HEADER + ROW + ROW.replace("original", "Original"), r"the conditions 'original' and 'Original' dif"),
        (HEADER + ROW + ROW.replace("P1", "p1"), r"the cases 'P1' and 'p1' differ in upper and lower case"),
        (HEADER + "P1,a,original,,,,5,,\n", r"every reading is empty"),
        ("", r"the column case is missing"),
        (HEADER + '"P1,a\n', r"cannot be read as CSV"),
    ],
)
def test_faults_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        read_study([path])
    assert "scores.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.csv cannot be read \(No such file"):
        read_study([tmp_path / "none.csv"])
    (tmp_path / "scores.xlsx").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(InputError, match=r"scores\.xlsx is not a UTF-8 text file; save"):
        read_study([tmp_path / "scores.xlsx"])


# ---- tables


def small_study() -> Study:
    """Six cases, one reader; PI-RADS 2, 3, 3, 4, 5, 5; registered finds one more than original."""
    pirads = (2, 3, 3, 4, 5, 5)
    sides = ("none", "none", "left", "left", "right", "bilateral")
    scores = {"original": (1, 4, 2, 3, 4, 5), "registered": (2, 3, 2, 4, 4, 5)}
    confidence = {"original": (3, 3, 3, 3, 3, 3), "registered": (4, 4, 5, 3, 2, 4)}
    named = {
        "original": ("left", "none", "left", "right", "right", "left"),
        "registered": ("none", "none", "left", "left", "left", "bilateral"),
    }
    readings = [
        Reading(f"P{n}", Sitting("a", c), scores[c][n], confidence[c][n], named[c][n])
        for c in scores
        for n in range(6)
    ]
    references = {
        f"P{n}": Reference(pirads[n], sides[n], "benign" if sides[n] == "none" else "3+4") for n in range(6)
    }
    return Study(tuple(readings), references)


def rows(results: Results, name: str) -> list[dict[str, object]]:
    return [dict(row) for row in table_of(results, name).rows]


def table_of(results: Results, name: str) -> Table:
    (table,) = [table for table in results.tables if table.name == name]
    return table


def test_tables_of_a_study_counted_by_hand() -> None:
    results = analyse(small_study())
    original, registered = rows(results, "auc")
    # Positives 3, 4, 5 against negatives 1, 4, 2: won 2, 2.5 and 3 of 3.
    assert original["auc"] == pytest.approx(7.5 / 9)
    assert registered["auc"] == 1.0
    (change,) = rows(results, "auc_comparison")
    assert change["difference"] == pytest.approx(1.5 / 9)
    cut = rows(results, "cut_off")[0]
    assert [cut["sensitivity"], cut["specificity"], cut["accuracy"]] == pytest.approx([2 / 3, 2 / 3, 4 / 6])
    kappas = {(row["first_condition"], row["second"]): row["kappa"] for row in rows(results, "kappa")}
    assert kappas["original", "reference"] == pytest.approx(1 / 3)
    assert kappas["registered", "reference"] == 1.0
    assert kappas["original", "a, registered"] == pytest.approx(1 / 3)
    (confidence,) = rows(results, "confidence_change")
    assert (confidence["risen"], confidence["equal"], confidence["fallen"]) == (4, 1, 1)
    assert confidence["second_mean"] == pytest.approx(22 / 6)


def test_side_and_gleason_counted_by_hand() -> None:
    results = analyse(small_study())
    original, registered = rows(results, "laterality")
    assert [original[f"{s}_hits"] for s in ("left", "right", "bilateral", "all")] == [1, 1, 0, 2]
    assert [registered[f"{s}_hits"] for s in ("left", "right", "bilateral", "all")] == [2, 0, 1, 3]
    assert original["all_cases"] == 4  # biopsies without cancer have no side
    overall = rows(results, "laterality_change")[-1]
    assert (overall["side"], overall["gained"], overall["lost"], overall["p"]) == ("all", 2, 1, 1.0)
    reference = [row for row in rows(results, "gleason") if row["source"] == "reference, PI-RADS"]
    assert [row["group_0"] for row in reference] == [0, 1, 1, 0, 0]
    assert [row["group_2"] for row in reference] == [0, 0, 1, 1, 2]


def test_distribution_counts_and_quartiles() -> None:
    row = rows(analyse(small_study()), "t2_score_distribution")[0]
    assert [row[f"rated_{level}"] for level in range(1, 6)] == [1, 1, 1, 2, 1]
    scores = np.array([1, 4, 2, 3, 4, 5])
    assert row["mean"] == pytest.approx(scores.mean())
    assert row["sd"] == pytest.approx(scores.std(ddof=1))
    assert [row["quartile_1"], row["median"], row["quartile_3"]] == [2.25, 3.5, 4.0]


def test_missing_ratings_leave_the_comparison_to_the_cases_of_both() -> None:
    study = small_study()
    gone = [r for r in study.readings if (r.case, r.sitting.condition) != ("P1", "registered")]
    results = analyse(Study(tuple(gone), study.references))
    assert [row["positives"] for row in rows(results, "auc")] == [3, 3]
    assert [row["negatives"] for row in rows(results, "auc")] == [3, 2]
    (change,) = rows(results, "auc_comparison")
    assert change["cases"] == 5
    # Without P1, whose score of 4 was the one that cost the original reading.
    assert change["difference"] == pytest.approx(0.0)
    assert any("up to 1 case" in caution for caution in results.cautions)


def test_a_study_of_sides_alone_has_no_other_section() -> None:
    study = small_study()
    readings = tuple(Reading(r.case, r.sitting, laterality=r.laterality) for r in study.readings)
    results = analyse(Study(readings, study.references))
    assert {table.name for table in results.tables} >= {"laterality", "laterality_change", "gleason"}
    assert not {"auc", "kappa", "confidence_change"} & {table.name for table in results.tables}
    assert pictures(results) == {}


def test_without_references_there_is_no_accuracy_but_agreement() -> None:
    results = analyse(Study(small_study().readings, {}))
    assert list(pictures(results)) == ["confidence.svg", "confidence.png"]
    assert any("No case has a reference PI-RADS" in caution for caution in results.cautions)
    assert [line[2] for line in table_of(results, "auc").lines()] == ["–", "–"]
    assert [row["cases"] for row in rows(results, "kappa")] == [0, 0, 6]


def test_interval_option_changes_the_interval_alone(made_up: Results) -> None:
    logit = analyse(made_up.study, Settings(interval="logit"))
    for plain, other in zip(rows(made_up, "auc"), rows(logit, "auc"), strict=True):
        assert plain["auc"] == other["auc"]
        assert plain["low"] != other["low"]


def test_cautions(made_up: Results) -> None:
    assert any(text.startswith("Few cases: 22 positive and 18 negative") for text in made_up.cautions)
    many = Study(
        tuple(Reading(str(n), Sitting(r, "x"), 1 + n % 5) for n in range(80) for r in "ab"),
        {str(n): Reference(2 + 2 * (n % 2)) for n in range(80)},
    )
    assert not any(text.startswith("Few cases") for text in analyse(many).cautions)
    alone = analyse(small_study()).cautions
    assert any(text.startswith("There is one reader") for text in alone)
    assert any("part the classes entirely" in text for text in alone)


def scored(readers: dict[str, tuple[int, ...]], pirads: tuple[int, ...]) -> Results:
    """Each reader's scores of the first cases, under one condition; 0 where a case was not read."""
    readings = [
        Reading(f"P{n}", Sitting(reader, "x"), score)
        for reader, scores in readers.items()
        for n, score in enumerate(scores)
        if score
    ]
    return analyse(Study(tuple(readings), {f"P{n}": Reference(value) for n, value in enumerate(pirads)}))


@pytest.mark.slow
def test_figures_without_variance_have_no_interval_and_all_are_named() -> None:
    pirads = (2, 3, 3, 4, 5, 5)
    results = scored({"exact": pirads, "same": (3,) * 6, "other": (1, 4, 2, 3, 4, 5)}, pirads)
    assert [line[2:5] for line in table_of(results, "auc").lines()[:2]] == [
        ["1.000", "–", "–"],
        ["0.500", "–", "–"],
    ]
    kappas = [line[3:6] for line in table_of(results, "kappa").lines()[:2]]
    assert kappas == [["1.000", "–", ".014"], ["0.000", "–", "–"]]
    areas = next(text for text in results.cautions if "no interval of the area" in text)
    assert "all alike: exact, x; same, x." in areas
    agreement = next(text for text in results.cautions if "no interval of kappa" in text)
    assert (
        "exact, x and reference; same, x and reference; exact, x and same, x; same, x and other, x."
        in agreement
    )
    assert sorted(pictures(results)) == ["roc.png", "roc.svg"]


def test_readers_of_different_cases_are_told() -> None:
    results = scored({"a": (1, 2, 3, 4, 5, 5), "b": (0, 2, 3, 4, 5, 0)}, (2, 3, 3, 4, 5, 5))
    (text,) = [text for text in results.cautions if text.startswith("Not all figures are of the same cases")]
    assert "up to 2 case(s) were rated by one of two readers only" in text
    assert "under one condition" not in text


def test_few_changed_cases_are_told_with_or_without_references() -> None:
    def study(cases: int) -> Study:
        readings = [
            Reading(str(n), Sitting("j", condition), confidence=confidence)
            for n in range(cases)
            for condition, confidence in (("o", 4), ("r", 5))
        ]
        return Study(tuple(readings), {})

    results = analyse(study(5))
    assert table_of(results, "confidence_change").lines()[0][5] == ".025"
    (text,) = [text for text in results.cautions if "signed-rank" in text]
    assert text.endswith("an exact test could not give less than 0.0625 for j, o → r (5 changed).")
    (text,) = [text for text in analyse(study(19)).cautions if "signed-rank" in text]
    assert text.endswith("which is rough there.")
    assert not any("signed-rank" in text for text in analyse(study(20)).cautions)


def test_one_reading_has_a_mean_without_spread() -> None:
    line = table_of(
        analyse(Study((Reading("P", Sitting("j", "o"), confidence=5),), {})), "confidence_distribution"
    )
    assert line.lines()[0][10] == "5.000 ± –"


def test_table_is_shown_rounded_and_written_whole() -> None:
    table = Table(
        "x",
        "X",
        (Column("Value", "{value:.2f}"), Column("p", "{p:p}"), Column("Share", "{share:percent}")),
        (
            {"value": -1 / 3, "p": 0.00042, "share": 8 / 13},
            {"value": float("nan"), "p": 0.5, "share": 1.0},
        ),
    )
    assert table.lines() == [["−0.33", "<.001", "61.5"], ["–", ".500", "100.0"]]
    read = list(csv.DictReader(io.StringIO(table.csv())))
    assert float(read[0]["value"]) == -1 / 3
    assert read[1]["value"] == ""
    assert table.csv(notice="made up").startswith("# made up\nvalue,p,share\n")
    assert [p_text(p) for p in (0.0009, 0.001, 0.2239, 1.0)] == ["<.001", ".001", ".224", "1.000"]


# ---- the made-up study and its report


def test_shipped_study_is_what_the_command_makes(tmp_path: Path) -> None:
    made = tmp_path / "made_up_study.csv"
    assert command(made_up_study, "--output", made) == 0
    assert made.read_bytes() == SHIPPED.read_bytes()
    assert made_up_csv(1) != made_up_csv(2025)
    assert command(made_up_study, "--output", made) == 2


def test_shipped_study_is_marked_everywhere(made_up: Results) -> None:
    study = made_up.study
    assert SHIPPED.read_text(encoding="utf-8").startswith("# MADE-UP STUDY")
    assert len(study.cases) == CASES
    assert all(case.startswith("made-up-") for case in study.cases)
    page = report_html(made_up, {})
    assert page.count("Made-up data: no patient was examined") == 1
    assert "made-up data" in page.split("</title>")[0]


@pytest.mark.slow
def test_command_writes_everything_and_the_same_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "study"
    assert command(reader_study, SHIPPED, "--output", output) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(output / "report.html")
    first = {path.name: path.read_bytes() for path in output.iterdir()}
    assert sorted(first) == sorted(FILES)
    assert first["roc.png"].startswith(b"\x89PNG")
    assert first["auc.csv"].startswith(b"# Made-up data")
    assert command(reader_study, SHIPPED, "--output", output, "--overwrite") == 0
    assert {path.name: path.read_bytes() for path in output.iterdir()} == first


def test_a_seed_below_zero_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = tmp_path / "names.txt"
    names.write_text("a\nb\n", encoding="utf-8")
    given = ("--output", tmp_path / "out", "--seed", -1)
    for called, arguments in ((reader_study, [SHIPPED]), (reader_form, [names]), (made_up_study, [])):
        assert command(called, *arguments, *given) == 2
        assert capsys.readouterr().err.strip() == "Error: The seed -1 is not between 0 and 2147483646."
    assert not (tmp_path / "out").exists()


def test_command_replaces_nothing_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "study"
    output.mkdir()
    (output / "report.html").write_text("earlier")
    assert command(reader_study, SHIPPED, "--output", output) == 2
    assert "--overwrite" in capsys.readouterr().err
    (output / "thesis.txt").write_text("mine")
    assert command(reader_study, SHIPPED, "--output", output, "--overwrite") == 2
    assert "thesis.txt" in capsys.readouterr().err
    assert (output / "report.html").read_text() == "earlier"
    assert command(reader_study, SHIPPED, "--output", output, "--interval", "exact") == 2
    faulty = write(tmp_path, HEADER + ROW.replace(",4,", ",9,"))
    assert command(reader_study, faulty, "--output", tmp_path / "new") == 2
    assert not (tmp_path / "new").exists()


def test_command_never_replaces_its_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "study"
    output.mkdir()
    inside = output / "kappa.csv"
    inside.write_bytes(SHIPPED.read_bytes())
    # Whatever its name, and also beside results; without a report nothing in the folder is a result.
    assert command(reader_study, inside, "--output", output, "--overwrite") == 2
    assert "kappa.csv lies in the output folder" in capsys.readouterr().err
    assert command(reader_study, SHIPPED, "--output", output, "--overwrite") == 2
    assert "holds other files (kappa.csv)" in capsys.readouterr().err
    (output / "report.html").write_text("earlier")
    assert command(reader_study, inside, "--output", output, "--overwrite") == 2
    link = output / "auc.csv"
    link.symlink_to(SHIPPED)
    assert command(reader_study, link, "--output", output, "--overwrite") == 2
    assert inside.read_bytes() == SHIPPED.read_bytes()
    assert link.is_symlink()


def test_report_needs_nothing_else_and_escapes(tmp_path: Path) -> None:
    row = ROW.replace(",a,", ",<b>a,")
    text = "# <script>x</script>\n" + HEADER + row + row.replace("P1", "P2").replace(",5,", ",2,")
    results = analyse(read_study([write(tmp_path, text)]))
    page = report_html(results, pictures(results))
    assert page.count('src="data:image/svg+xml;base64,') == 2
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "<script" not in page
    assert "<b>a" not in page
    assert "&lt;b&gt;a" in page


def test_report_states_how_it_was_made(made_up: Results) -> None:
    page = report_html(made_up, {})
    for words in ("two-sided", "α = .05", "no correction for multiplicity", "not a medical device", "DeLong"):
        assert words in page
    count = sum(cell != "" for t in made_up.tables for cell in p_cells(t))
    assert f"{count} p-values" in page


def p_cells(table: Table) -> list[str]:
    return [row.get("p", "") for row in csv.DictReader(io.StringIO(table.csv()))]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("name", ["a$_$b", "_a", "王医生", "very long " * 12, "x" * 500])
def test_figures_take_names_of_any_kind(name: str) -> None:
    """No formula, no label left out, no warning, and panels as large as with short names."""
    study = small_study()
    named = tuple(replace(r, sitting=Sitting(name, f"{name} {r.sitting.condition}")) for r in study.readings)
    study = Study(named, study.references)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = roc_figure(study, roc_curves(study)), confidence_figure(study)
        for figure in figures:
            assert rendered(figure, "png").startswith(b"\x89PNG")
            assert any(text.replace("\n", " ").startswith(name[:20]) for text in texts(figure))
            assert figure.axes[0].get_window_extent().width > 2.5 * figure.dpi
    assert len(figures[0].axes[0].get_legend().get_texts()) == 2
    box = figures[0].axes[0].get_legend().get_window_extent()
    assert box.y1 < figures[0].axes[0].get_window_extent().y0


# ---- the form


class _Inputs(HTMLParser):
    """The values of every named input of a page, by name."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.values: dict[str, list[str]] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("input", "textarea"):
            self.values.setdefault(str(given["name"]), []).append(given.get("value") or "")


def form_data(page: str) -> dict[str, object]:
    found = re.search(r"const data = (\{.*\});", page)
    assert found
    return dict(json.loads(found[1]))


PLAN = Plan(tuple(f"P{n}" for n in range(12)), ("ann", "bob"), ("trus", "original"), ("trus",))


def test_form_asks_what_the_analysis_reads() -> None:
    page = form_html(PLAN, "ann", "original")
    values = _Inputs(page).values
    assert values["t2_score"] == list("12345")
    assert values["confidence"] == list("1234567")
    assert values["laterality"] == ["left", "right", "bilateral", "none"]
    data = form_data(page)
    assert {zone: list(levels) for zone, levels in data["criteria"].items()} == {  # type: ignore[attr-defined]
        zone: list("12345") for zone in values["zone"]
    }
    assert "PI-RADS v2.1" in page
    assert "Choose the zone to see its criteria." in page
    assert not re.findall(r'(?:src|href)="', page)


_BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.slow
@pytest.mark.skipif(_BROWSER is None, reason="needs Chromium")
def test_form_asks_for_the_zone_unless_there_is_no_lesion(tmp_path: Path) -> None:
    script = """<script>
    const seen = [];
    const left = {laterality: "left"};
    for (const answers of [{}, left, {...left, zone: "pz"}, {laterality: "none"}]) {
      form.reset();
      for (const [name, value] of Object.entries({t2_score: "2", confidence: "5", ...answers}))
        form.elements[name].value = value;
      keep();
      const complete = parseInt(document.getElementById("progress").textContent);
      seen.push(`${complete} ${form.querySelector(".hint").hidden}`);
    }
    document.title = seen.join(", ");
    </script></body>"""
    page = tmp_path / "form.html"
    page.write_text(form_html(PLAN, "ann", "original").replace("</body>", script), encoding="utf-8")
    # In a container the administrator runs it, for whom its sandbox does not work.
    called = [str(_BROWSER), "--no-sandbox", "--headless", "--disable-gpu", "--dump-dom", page.as_uri()]
    shown = subprocess.run(called, check=True, capture_output=True, timeout=120, text=True).stdout
    assert "<title>0 false, 0 false, 1 true, 1 false</title>" in shown


def test_form_for_the_side_alone() -> None:
    page = form_html(PLAN, "ann", "trus")
    assert list(_Inputs(page).values) == ["laterality", "note"]
    assert form_data(page)["needed"] == ["laterality"]


def test_each_form_has_all_cases_in_its_own_order() -> None:
    orders = [PLAN.order(reader, condition) for reader in PLAN.readers for condition in PLAN.conditions]
    assert all(sorted(order) == sorted(PLAN.cases) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert PLAN.order("ann", "trus") == orders[0]


def test_names_cannot_break_out_of_the_form() -> None:
    page = form_html(Plan(("</script><i>",), ("a",), ("b",)), "a", "b")
    assert page.count("</script>") == 1
    assert form_data(page)["cases"] == ["</script><i>"]
    with pytest.raises(InputError, match="'a/b' cannot be part of a file name"):
        Plan(("P1",), ("a/b",), ("c",))
    with pytest.raises(InputError, match="at least one reader"):
        Plan(("P1",), (), ("c",))
    with pytest.raises(InputError, match="ann, Ann: give every reader and condition a name of its own"):
        Plan(("P1",), ("ann", "Ann"), ("c",))


def test_filled_forms_are_read_together(tmp_path: Path) -> None:
    names = write_forms(PLAN, tmp_path)
    sheets = sorted(tmp_path.glob("scores_*.csv"))
    assert len(sheets) == 4
    assert len(names) == 9
    with pytest.raises(InputError, match="every reading is empty"):
        read_study([*sheets, tmp_path / "reference.csv"])
    for sheet in sheets:
        fill(sheet, t2_score="4" if "original" in sheet.name else "", laterality="left", note="a, b")
    fill(tmp_path / "reference.csv", reference_pirads="5", biopsy_laterality="left", gleason="3+4")
    study = read_study([*sheets, tmp_path / "reference.csv"])
    assert len(study.readings) == 48
    assert all(study.reference(case) == Reference(5, "left", "3+4") for case in PLAN.cases)
    assert study.sittings("t2_score") == (Sitting("ann", "original"), Sitting("bob", "original"))


def fill(path: Path, **cells: str) -> None:
    lines = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(lines[0]))
        writer.writeheader()
        writer.writerows({**line, **cells} for line in lines)


def test_form_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = write(tmp_path, "case,age\nP1,70\n# left out\nP2,66\n", "cases.csv")
    output = tmp_path / "forms"
    assert command(reader_form, cases, "--output", output, "--readers", "ann") == 0
    printed = capsys.readouterr().out
    assert "form_ann_registered.html" in printed
    assert f"1 comment line(s) of {cases} were left out." in printed
    assert (output / "reference.csv").read_text().startswith("case,reference_pirads,")
    # Answers may be in the folder.
    assert command(reader_form, cases, "--output", output) == 2
    assert "never replaced" in capsys.readouterr().err


def test_conditions_of_the_side_alone_must_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases, output = write(tmp_path, "P1\n", "cases.txt"), tmp_path / "forms"
    given = (cases, "--output", output, "--readers", "ann", "--conditions", "trus,original")
    assert command(reader_form, *given, "--side-only", "trsu") == 2
    assert "--side-only names 'trsu', which is not read; the conditions are trus" in capsys.readouterr().err
    assert command(reader_form, *given) == 0
    needed = {
        name: form_data((output / f"form_ann_{name}.html").read_text(encoding="utf-8"))["needed"]
        for name in ("trus", "original")
    }
    assert needed == {
        "trus": ["laterality"],
        "original": ["zone", "t2_score", "confidence", "laterality"],
    }


def test_list_of_cases(tmp_path: Path) -> None:
    for text, names in (
        ("\ufeffP1\n\nP2;x\n", ("P1", "P2")),
        ('"Doe, Jane"\n"Roe, Rick"\n', ("Doe, Jane", "Roe, Rick")),
        ("patient,Case\n1,P1\n2,P2\n", ("P1", "P2")),
        ("#1\n#2\n", ("#1", "#2")),
    ):
        assert read_cases(write(tmp_path, text, "c.txt")) == CaseList(names)
    assert read_cases(write(tmp_path, "# a\nP1\n#2\n# b\n", "c.txt")) == CaseList(("P1", "#2"), comments=2)
    for text, message in (
        ("case\n", "names no cases"),
        ("#Cases of 2024\ncase\nP1\n", r"c\.txt, row 2: the header case must be the first line but"),
        ("P1\nP1\n", "names the case P1 twice"),
        ("P1\np1\n", "names the case p1 twice"),
        ("patient,case\n1,P1\n\n2,\n", r"c\.txt, row 4: the case has no name"),
        ('"P1\n', "cannot be read as CSV"),
    ):
        with pytest.raises(InputError, match=message):
            read_cases(write(tmp_path, text, "c.txt"))
    with pytest.raises(InputError, match=r"none\.txt cannot be read"):
        read_cases(tmp_path / "none.txt")
