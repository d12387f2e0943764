"""The µ-RegPro measures of registrations with known answers, and the other measures taken on request."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from dataset_case import write_dataset
from shapes import array, bump_mm, cube_grid, ellipsoid, overlap

from MRTRUSRegistrationLib.compat_measures import (
    MuregCase,
    mureg_code_cohort,
    mureg_code_unregistered,
    mureg_score,
    mureg_site_cohort,
    mureg_site_normaliser,
)
from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import Grid, resample, resample_mask
from MRTRUSRegistrationLib.jacobian import jacobian_statistics
from MRTRUSRegistrationLib.pipeline import Settings, register
from MRTRUSRegistrationLib.results import Deformation, GlandSegmentation, Registration, RigidAlignment
from MRTRUSRegistrationLib.transforms import compose, field_transform, inverse_points_mm, transform_points_mm
from MRTRUSTraining.data.cases import LoadedCase, centred_initial
from MRTRUSTraining.evaluation.command import evaluate as evaluate_command
from MRTRUSTraining.evaluation.evaluate import MetricsRow, all_labels_csv, evaluate_case, metrics_csv
from MRTRUSTraining.evaluation.mureg import (
    ChallengeFigures,
    challenge_csv,
    challenge_figures,
    challenge_rows,
    inverse_deformation,
    unregistered,
)
from MRTRUSTraining.evaluation.summary import challenge_summary, summary_markdown

SPACING_MM = 2.0
GRID = Grid((26, 24, 22), (SPACING_MM,) * 3)
# Of the TRUS's labels against those of the MR, by index (i, j, k).
SHIFT_VOX = (2, 1, 0)
RIGID = sitk.Euler3DTransform((1.0, -2.0, 0.5), 0.08, -0.05, 0.1, (3.0, -2.0, 1.5))
CUBE = cube_grid(32, 2.0)


def blocks(shift_vox: tuple[int, int, int] = (0, 0, 0)) -> list[sitk.Image]:
    """A gland of 12 × 12 × 10 voxels and two landmarks of 3 × 3 × 3, moved by a shift (i, j, k)."""
    labels = []
    for start, size in (((6, 6, 6), (12, 12, 10)), ((8, 8, 8), (3, 3, 3)), ((13, 12, 10), (3, 3, 3))):
        mask = np.zeros(GRID.size_vox[::-1], np.uint8)
        begin = np.add(start, shift_vox)[::-1]
        mask[tuple(slice(b, b + n) for b, n in zip(begin, size[::-1], strict=True))] = 1
        labels.append(GRID.image(mask))
    return labels


def textured(grid: Grid, seed: int) -> sitk.Image:
    values = np.random.default_rng(seed).uniform(10, 200, grid.size_vox[::-1])
    return grid.image(values.astype(np.float32))


def shifted_case(name: str = "a") -> LoadedCase:
    """Both images on one grid; the TRUS's labels are those of the MR moved by SHIFT_VOX."""
    mr, trus = tuple(blocks()), tuple(blocks(SHIFT_VOX))
    names = ("gland", "landmark 1", "landmark 2")
    start = centred_initial(GRID, GRID)
    return LoadedCase(name, name, textured(GRID, 1), textured(GRID, 2), mr, trus, names, start)


def rows_of(case: LoadedCase, *methods: str, measures: tuple[str, ...]) -> list[MetricsRow]:
    found = evaluate_case(
        case,
        methods,
        masks="reference",
        settings=Settings(device="cpu"),
        measures=measures,  # type: ignore[arg-type]
    )
    return list(found)


# --- known shifts --------------------------------------------------------------------------------------


def test_a_known_shift_gives_the_figures_of_both_variants() -> None:
    """Shift of 2 and 1 voxels: L1 is 3 (site), its mean over the axes 1 (code)."""
    start, matched = rows_of(shifted_case(), "initial", "centroid", measures=("challenge",))
    dsc = (10 * 11 * 10) / (12 * 12 * 10)
    assert start.extras["mureg_site_dsc"] == pytest.approx(dsc, abs=1e-6)
    assert start.extras["mureg_code_dsc"] == pytest.approx(dsc, abs=1e-6)
    assert start.extras["mureg_site_tre_vox"] == pytest.approx(3.0)
    assert start.extras["mureg_site_rts_vox"] == pytest.approx(3.0)
    # Three labels of six are there: the scorer's mean counts the others as perfect.
    assert start.extras["mureg_code_tre_vox"] == pytest.approx(np.sqrt(3 * 1.0 / 6))
    assert start.extras["mureg_code_rts_vox"] == pytest.approx(np.sqrt((1 / 4) * 1.0))
    assert 0 < start.extras["mureg_site_hd95_vox"] <= 2.0
    assert start.extras["mureg_site_stdjd"] == 0.0
    for name in ("tre_vox", "rts_vox", "hd95_vox"):
        assert matched.extras[f"mureg_site_{name}"] == pytest.approx(0.0, abs=1e-6)
    assert matched.extras["mureg_site_dsc"] == 1.0
    assert matched.challenge is not None
    assert matched.challenge.site_unregistered == start.challenge.site  # type: ignore[union-attr]


def test_unregistered_figures_of_the_scorer_ignore_the_grids() -> None:
    """A cube at index 4 of 15 and one at 8 of 30 are the same place, but 4.5 voxels apart by index."""
    fixed, moving = np.zeros((1, 30, 30, 30)), np.zeros((1, 15, 15, 15))
    fixed[0, 8:16, 8:16, 8:16] = 1
    moving[0, 4:8, 4:8, 4:8] = 1
    found = mureg_code_unregistered(fixed, moving)
    # Centroids 11.5 and 5.5 are cut to whole voxels.
    assert found.label_errors_vox == (6.0,)
    assert found.tre_vox == found.rts_vox == 6.0
    # Stretched linearly, each side of the cube is 0.25 0.75 1 … 1 0.75 0.25.
    assert found.dsc == pytest.approx(7.5**3 / 8**3)
    assert found.hd95_vox < 2.0
    same = mureg_code_unregistered(fixed, fixed)
    assert (same.dsc, same.hd95_vox, same.tre_vox) == (1.0, 0.0, 0.0)


# --- the inverse map -----------------------------------------------------------------------------------


def test_the_inverse_deformation_undoes_the_deformation() -> None:
    field = field_transform(bump_mm(CUBE, (5.0, -3.0, 4.0), width_mm=11.0), CUBE)
    inverse = inverse_deformation(field)
    points = np.random.default_rng(0).uniform(-22, 22, (200, 3))
    there = transform_points_mm(field, points)
    assert np.abs(there - points).max() > 3
    np.testing.assert_allclose(transform_points_mm(inverse, there), points, atol=0.15)
    exact = inverse_points_mm(sitk.Euler3DTransform(), field, points)
    assert np.linalg.norm(transform_points_mm(inverse, points) - exact, axis=1).mean() < 0.03


def warped_case() -> tuple[LoadedCase, Registration]:
    """A TRUS made from the MR by a rigid and a deformable map, and the registration that knows it."""
    deformation = field_transform(bump_mm(CUBE, (6.0, -4.0, 5.0), width_mm=12.0), CUBE)
    truth = compose(RIGID, deformation)
    mr = [ellipsoid(CUBE, (17, 14, 15))]
    mr += [ellipsoid(CUBE, (4, 4, 4), centre_mm=place) for place in ((6.0, 3.0, -4.0), (-7.0, -2.0, 5.0))]
    trus = [resample_mask(label, CUBE, truth) for label in mr]
    image = textured(CUBE, 3)
    moved = resample(image, CUBE, truth)
    names = ("gland", "landmark 1", "landmark 2")
    case = LoadedCase("a", "a", image, moved, tuple(mr), tuple(trus), names, centred_initial(CUBE, CUBE))
    found = register(
        case.mr,
        case.trus,
        settings=Settings(device="cpu", method="centroid"),
        mr_gland=GlandSegmentation(mr[0]),
        trus_gland=GlandSegmentation(trus[0]),
    )
    known = replace(
        found,
        rigid=RigidAlignment(RIGID, "known", 0.0),
        deformation=Deformation(deformation, "known"),
        transform=truth,
    )
    return case, known


def test_the_challenge_warps_trus_on_to_mr() -> None:
    """With the true map the TRUS's labels come to lie on those of the MR; with its reverse they do not."""
    case, known = warped_case()
    before = unregistered(case)
    figures = challenge_figures(case, known, before)
    assert figures.site.dsc > 0.95
    assert figures.site.tre_vox < 0.5
    assert before[0].tre_vox > 2
    backwards = resample(sitk.Cast(case.trus_gland, sitk.sitkFloat32), CUBE, known.transform)
    assert overlap(backwards > 0.5, case.mr_gland) < figures.site.dsc - 0.1
    forward = jacobian_statistics(known.transform, CUBE.blank() + 1).log_std
    assert figures.std_log_jacobian == pytest.approx(forward, rel=0.15)
    assert figures.std_log_jacobian > 0.02


# --- cohorts -------------------------------------------------------------------------------------------


def figures(dsc: float, error_vox: float) -> ChallengeFigures:
    after = MuregCase(dsc, 2.0, (error_vox, error_vox), error_vox, error_vox)
    before = MuregCase(0.4, 8.0, (10.0, 6.0), 8.0, 7.0)
    return ChallengeFigures(after, after, before, before, 0.1)


def test_a_cohort_is_scored_by_both_definitions() -> None:
    cases = [figures(0.8, 2.0), figures(0.9, 4.0)]
    site, code = challenge_rows("cmsa", cases, failed=0, seconds=1.5)
    assert (site.variant, code.variant) == ("site", "code")
    assert (site.dsc, site.tre_vox, site.stdjd, site.seconds) == pytest.approx((0.85, 3.0, 0.1, 1.5))
    after, before = [c.site for c in cases], [c.site_unregistered for c in cases]
    expected = mureg_score(mureg_site_cohort(after), normaliser=mureg_site_normaliser(before))
    assert site.score == pytest.approx(expected)
    assert code.score == pytest.approx(
        mureg_score(mureg_code_cohort(after), normaliser=mureg_code_cohort(before))
    )
    assert site.score > code.score, "the web page divides by the largest single error, 10"
    assert np.isnan(code.stdjd)


def test_a_failing_case_scores_nothing() -> None:
    whole = challenge_rows("cmsa", [figures(0.8, 2.0)] * 3, failed=0, seconds=1.0)
    with_failure = challenge_rows("cmsa", [figures(0.8, 2.0)] * 3, failed=1, seconds=1.0)
    assert with_failure[0].score == pytest.approx(0.75 * whole[0].score)
    assert with_failure[0].failed == 1
    lines = list(csv.DictReader(challenge_csv(with_failure).splitlines()))
    assert [(line["method"], line["variant"], line["failed"]) for line in lines] == [
        ("cmsa", "site", "1"),
        ("cmsa", "code", "1"),
    ]
    assert lines[1]["stdjd"] == ""


def test_cases_without_landmarks_have_no_site_score() -> None:
    case = shifted_case()
    bare = replace(
        case, mr_labels=case.mr_labels[:1], trus_labels=case.trus_labels[:1], label_names=("gland",)
    )
    (row,) = rows_of(bare, "initial", measures=("challenge",))
    site, code = challenge_summary([row])
    assert np.isnan(site.score)
    assert np.isfinite(code.score)


def test_cases_may_have_other_numbers_of_labels() -> None:
    """Beyond the scorer's six channels a case has as many as its last label needs."""
    case = shifted_case()
    rows = []
    for last in (6, 7):
        named = replace(case, label_names=("gland", "landmark 1", f"landmark {last}"))
        rows += rows_of(named, "initial", measures=("challenge",))
    assert [len(row.challenge.code.label_errors_vox) for row in rows] == [7, 8]  # type: ignore[union-attr]
    site, code = challenge_summary(rows)
    # All errors are 1; of the four labels that any case has, each has three.
    assert (site.tre_vox, code.tre_vox) == pytest.approx((3.0, np.sqrt(3 / 4)))
    assert code.cases == 2


# --- other measures on request, and every label --------------------------------------------------------


def test_measures_of_the_published_code_and_of_paper_b() -> None:
    (row,) = rows_of(shifted_case(), "initial", measures=("compat", "paper-b"))
    assert row.extras["tre_srm_compat"] == pytest.approx(np.hypot(2, 1), rel=0.02)  # in voxels of 2 mm
    assert row.tre_rms_mm == pytest.approx(2 * np.hypot(2, 1), abs=1e-6)
    for side in ("mr", "trus"):
        for name in ("accuracy", "precision", "recall"):
            assert row.extras[f"segmentation_{name}_{side}"] == 1.0
        assert row.extras[f"segmentation_hd95_mm_{side}"] == 0.0
    assert row.extras["paper_b_dsc"] == pytest.approx((10 * 11 * 10) / (12 * 12 * 10))
    assert row.extras["paper_b_tre_mm"] == pytest.approx(2 * np.hypot(2, 1), abs=1e-6)
    assert row.extras["paper_b_hd95_mm"] == pytest.approx(row.hd95_mm)
    assert rows_of(shifted_case(), "initial", measures=())[0].extras == {}


def test_extras_are_the_last_columns_and_stand_in_the_summary() -> None:
    rows = rows_of(shifted_case(), "initial", measures=("compat", "challenge"))
    rows.append(MetricsRow("b", "initial", "reference", error="It broke."))
    lines = list(csv.DictReader(metrics_csv(rows).splitlines()))
    names = list(lines[0])
    assert names[: names.index("error") + 1][-2:] == ["warnings", "error"]
    assert names[names.index("error") + 1 :][:3] == [
        "tre_srm_compat",
        "dsc_srm_compat",
        "jac_std",
    ]
    assert float(lines[0]["mureg_site_tre_vox"]) == 3.0
    assert lines[1]["mureg_site_tre_vox"] == ""
    text = summary_markdown(rows, title="t", command="c")
    assert "| initial | mureg_site | 1 |" in text
    assert "| tre_srm_compat |" in text
    assert "µ-RegPro" not in summary_markdown(rows[1:], title="t", command="c")


def test_every_label_has_a_row() -> None:
    rows = rows_of(shifted_case(), "initial", "centroid", measures=())
    lines = list(csv.DictReader(all_labels_csv(rows).splitlines()))
    assert [(line["method"], line["label"]) for line in lines] == [
        (method, label)
        for method in ("initial", "centroid")
        for label in ("gland", "landmark 1", "landmark 2")
    ]
    gland, landmark = lines[0], lines[1]
    assert float(gland["dsc"]) == pytest.approx(rows[0].dsc, abs=1e-4)
    assert float(landmark["dsc"]) == pytest.approx((1 * 2 * 3) / 27, abs=1e-4)
    assert float(landmark["error_mm"]) == pytest.approx(2 * np.hypot(2, 1), abs=1e-3)
    assert float(landmark["volume_ml"]) == pytest.approx(27 * 8 / 1000, abs=1e-4)
    assert landmark["lost"] == "0"
    assert float(lines[4]["error_mm"]) == pytest.approx(0.0, abs=1e-3)
    assert float(lines[4]["dsc"]) == 1.0


def test_landmarks_given_as_points_are_measured_as_points() -> None:
    from MRTRUSRegistrationLib.landmarks import LandmarkPairs
    from MRTRUSRegistrationLib.results import Landmarks

    case = shifted_case()
    here = np.array([[20.0, 20.0, 18.0]])
    shift_mm = np.array(SHIFT_VOX) * SPACING_MM
    pairs = LandmarkPairs(
        Landmarks(("cyst",), here), Landmarks(("cyst",), here + shift_mm + (0.0, 0.0, 1.25))
    )
    pointed = replace(
        case,
        mr_labels=case.mr_labels[:2],
        trus_labels=case.trus_labels[:2],
        label_names=("gland", "cyst"),
        points=pairs,
    )
    (row,) = rows_of(pointed, "centroid", measures=())
    assert row.tre_rms_mm == pytest.approx(1.25, abs=1e-6)
    assert row.labels[1].error_mm == pytest.approx(1.25, abs=1e-6)
    assert np.isnan(row.labels[1].dsc)


def test_the_command_writes_all_tables(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", "muregpro", ("a",))
    output = tmp_path / "out"
    evaluate_command(
        tmp_path / "data",
        "muregpro",
        "initial",
        output,
        masks="reference",
        device="cpu",
        measures="challenge,compat,paper-b",
    )
    assert {path.name for path in output.iterdir()} == {
        "metrics.csv",
        "labels.csv",
        "challenge.csv",
        "summary.md",
    }
    with (output / "challenge.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["variant"] for line in lines] == ["site", "code"]
    assert 0 < float(lines[0]["score"]) < 1
    with pytest.raises(InputError, match="'everything'"):
        evaluate_command(tmp_path / "data", "muregpro", "initial", output, measures="everything")
    with pytest.raises(InputError, match="manifest"):
        evaluate_command(tmp_path / "data", "nifti", "initial", output)
    assert array(sitk.ReadImage(str(tmp_path / "data" / "mr_labels" / "a.nii.gz"))).ndim == 4


def test_the_tables_are_there_whatever_becomes_of_the_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> str:
        raise ValueError("The summary broke.")

    monkeypatch.setattr("MRTRUSTraining.evaluation.summary.summary_markdown", broken)
    write_dataset(tmp_path / "data", "muregpro", ("a",))
    with pytest.raises(ValueError, match="broke"):
        evaluate_command(
            tmp_path / "data", "muregpro", "initial", tmp_path / "out", masks="reference", device="cpu"
        )
    with (tmp_path / "out" / "metrics.csv").open() as file:
        assert [line["case"] for line in csv.DictReader(file)] == ["a"]
