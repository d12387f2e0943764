"""The simulator's evidence: that its measures measure, and that a page comes out of the command."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from shapes import cube_grid, ellipsoid

from MRTRUSRegistrationLib.cli_support import run_app
from MRTRUSTraining.cli import app
from MRTRUSTraining.simulation import evidence, evidence_drawn, evidence_rendered, trus
from MRTRUSTraining.simulation.anatomy import Anatomy
from MRTRUSTraining.simulation.cases import grid_points, mr_grid_of, simulate
from MRTRUSTraining.simulation.findings import finding, spread, table
from MRTRUSTraining.simulation.noise import blur_axis
from MRTRUSTraining.simulation.sampling import sample_case

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def parameters():
    """Without lesions and artefacts, at a coarse spacing."""
    drawn = sample_case(7, preset="sample", spacing_mm=2.4)
    trus = replace(drawn.trus, gain_variation_db=0.0)
    return replace(drawn, trus=trus, nodules=(), cysts=(), calcifications=())


@pytest.fixture(scope="module")
def shown(parameters):
    return evidence_rendered.shown_by(simulate(parameters))


# --- the table -------------------------------------------------------------------------------------------


def test_a_row_agrees_within_its_limits_and_says_nothing_about_nothing():
    rows = [
        finding("q", value, (1.0, 2.0), expected="1 to 2", source="s") for value in (1.5, 2.1, float("nan"))
    ]
    assert [row.within for row in rows] == [True, False, None]
    lines = table(rows).splitlines()
    assert lines[2] == "| q | 1.50 | 1 to 2 | s | yes |"
    assert [line.split(" | ")[-1] for line in lines[3:]] == ["**no** |", "– |"]
    assert spread([1.0, 3.0], unit="mm") == "2.00 ± 1.00 (1.00 to 3.00) mm, n = 2"
    assert spread([]) == "none drawn"


# --- speckle ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("axis", "sigma"), [(0, 2.0), (2, 3.0)])
def test_correlation_width_of_filtered_noise_is_that_of_the_filter(axis, sigma):
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn((2, 60, 60, 60), generator=generator)
    power = sum(blur_axis(part, axis, sigma, normalised=False) ** 2 for part in noise)
    width = evidence_drawn.correlation_width(power[12:-12, :, 12:-12], axis, 0.5)
    assert width == pytest.approx(2.3548 * sigma * 0.5, rel=0.06)


@pytest.mark.slow
def test_bare_speckle_follows_theory(parameters):
    rows = {row.quantity: row for row in evidence_drawn.speckle_findings([parameters.trus])}
    for name in ("mean / sd of the envelope", "sd in dB", "correlation width along the beam / point spread"):
        assert rows[f"speckle: {name}"].within, rows[f"speckle: {name}"]


@pytest.mark.slow
def test_speckle_that_is_not_developed_is_found_out(parameters, monkeypatch):
    """Half of the envelope's fluctuation: the rows must say no."""

    def smoother(echo_db, beams, settings):
        return 0.5 + 0.5 * trus.speckle(echo_db, beams, settings)

    monkeypatch.setattr(evidence_drawn, "speckle", smoother)
    rows = {row.quantity: row for row in evidence_drawn.speckle_findings([parameters.trus])}
    assert rows["speckle: mean / sd of the envelope"].within is False
    assert rows["speckle: sd in dB"].within is False


# --- motion ----------------------------------------------------------------------------------------------


def test_a_rotation_alone_moves_nothing_after_the_best_rigid_map(parameters):
    turned = replace(
        parameters, deformation=replace(parameters.deformation, strength=0.0, rotation_deg=(0, 0, 12))
    )
    motion = evidence_drawn.motion_of(turned)
    assert motion.rotation_deg == pytest.approx(12, abs=0.01)
    assert motion.after_rigid_mm < 1e-3
    assert motion.largest_mm == 0
    assert motion.jacobian_min == pytest.approx(1, abs=1e-5)


def test_a_lesions_motion_includes_the_rotation_of_the_gland(parameters):
    """A lesion away from the axis: the chord of its turn about the gland's centroid."""
    still = replace(parameters.deformation, strength=0.0, rotation_deg=(0, 0, 12))
    lesion = replace(parameters.lesions[0], centre_mm=(18.0, 0.0, 0.0), radii_mm=(4.0, 4.0, 4.0))
    motion = evidence_drawn.motion_of(replace(parameters, deformation=still, lesions=(lesion,)))
    assert motion.lesions_mm == (0,)
    chord = 2 * np.sin(np.radians(6))
    assert motion.lesions_with_bulk_mm[0] == pytest.approx(18 * chord, abs=4 * chord)
    turned = replace(motion, lesions_with_bulk_mm=(6.0, 3.0))
    rows = {row.quantity: row for row in evidence_drawn.motion_findings([turned])}
    row = rows["share of lesions that move by 5.6 to 13.9 mm, gland centroids together"]
    assert (row.within, row.measured[:5]) == (False, "0.50:")


def test_folds_and_excessive_motion_are_reported(parameters):
    wild = replace(parameters.deformation, residual_mm=(25.0, 0.0, 0.0), dent_mm=0.0, strength=1.0)
    motion = evidence_drawn.motion_of(replace(parameters, deformation=wild))
    rows = evidence_drawn.motion_findings([motion])
    assert motion.largest_mm > 14
    assert {row.quantity: row.within for row in rows}["largest motion in the gland, mm"] is False
    assert motion.after_rigid_mm > 3


# --- glands and tissues ----------------------------------------------------------------------------------


def test_a_peripheral_zone_that_grows_in_large_glands_is_found_out(parameters):
    glands = [
        replace(parameters.gland, volume_ml=volume, transition_zone_ml=volume - zone)
        for volume, zone in ((40, 19), (60, 20), (80, 19), (100, 19), (120, 24), (140, 29))
    ]
    rows = {row.quantity: row.within for row in evidence_drawn.gland_findings(glands)}
    assert rows["peripheral zone: growth per ml of gland"] is True
    assert rows["peripheral zone above 90 ml: growth per ml of gland"] is False


def test_lesions_that_vary_too_little_are_found_out(parameters):
    lesions = [replace(parameters.lesions[0], t2_ms=97.0 + off) for off in (-10.0, 10.0)]
    rows = {row.quantity: row for row in evidence_drawn.lesion_findings(lesions)}
    assert rows["lesions: T2, ms"].within is True
    assert (rows["lesions: T2: sd, ms"].measured, rows["lesions: T2: sd, ms"].within) == ("10.0", False)


def test_only_a_pair_at_the_standard_spacing_is_judged_by_its_seconds(parameters):
    for spacing_mm, seconds, within in ((0.8, 14.0, True), (0.8, 16.0, False), (2.4, 1.0, None)):
        pair = SimpleNamespace(parameters=replace(parameters, spacing_mm=spacing_mm))
        assert evidence._time_finding(evidence._Rendered((pair,), (seconds,))).within is within


# --- rendered cases --------------------------------------------------------------------------------------


def test_signal_ratios_are_those_of_the_drawn_t2(parameters, shown):
    """Textures and noise included: the measure finds the physics in the image."""
    mr = parameters.mr

    def signal(tissue):
        t2, density, _, _ = mr.tissues[tissue]
        return density * np.exp(-mr.echo_time_ms / t2)

    for tissue in ("transition", "fat"):
        expected = signal(tissue) / signal("peripheral")
        assert shown.mr_ratios[tissue] == pytest.approx(expected, rel=0.15), tissue
    assert np.isnan(shown.mr_ratios["lesion"]) == (len(parameters.lesions) == 0)


def test_echo_differences_are_those_drawn(parameters, shown):
    drawn = parameters.trus.tissues["peripheral"][0] - parameters.trus.tissues["transition"][0]
    # One case's zones differ by their texture and by what the gain over depth leaves as well.
    assert shown.zone_step_db == pytest.approx(drawn, abs=2.5)
    assert shown.echo_db["urine"] < -8
    assert np.isnan(shown.echo_db["cyst"])
    assert shown.calcifications_db == ()
    for expected, found in shown.lesions_db:
        assert found == pytest.approx(expected, abs=2.5)


def test_volumes_are_those_drawn(shown):
    assert abs(shown.mr_volume) < 0.02
    assert abs(shown.volume_change) < 0.06
    assert 0.9 < shown.in_fan <= 1


def test_pure_tissue_is_where_the_anatomy_paints_it(parameters):
    anatomy = Anatomy(parameters, CPU)
    points = grid_points(mr_grid_of(parameters), parameters.mr.centre_mm, CPU).reshape(-1, 3)
    pure = evidence_rendered.pure_tissues(
        anatomy, points, ("peripheral", "transition"), parameters.mr.tissues, rectum=True
    )
    assert not (pure["peripheral"] & pure["transition"]).any()
    gland = anatomy.gland.distance(points).numpy()
    assert gland[pure["peripheral"] | pure["transition"]].max() < 0
    assert pure["transition"].sum() * 2.4**3 / 1000 == pytest.approx(
        parameters.gland.transition_zone_ml, rel=0.4
    )


def test_gland_statistics_of_a_bright_ball():
    grid = cube_grid(40, 1.5)
    gland = ellipsoid(grid, (14, 14, 14))
    image = sitk.Cast(gland, sitk.sitkFloat32) * 60 + 40
    found = evidence_rendered.gland_statistics(image, gland)
    assert found["gland / rim around it"] == pytest.approx(2.5, abs=0.01)
    assert found["brightness of the gland"] == pytest.approx(1.0)
    assert found["variation inside the gland"] == pytest.approx(0.0, abs=1e-6)


# --- the command -----------------------------------------------------------------------------------------


def write_pair(folder):
    """One pair in the public layout: a bright ball in both images."""
    grid = cube_grid(32, 2.0)
    gland = ellipsoid(grid, (16, 14, 15))
    for side in ("moving", "fixed"):
        for kind in ("images", "labels"):
            (folder / f"{side}_{kind}").mkdir(parents=True)
        image = sitk.Cast(gland, sitk.sitkFloat32) * 50 + 60
        sitk.WriteImage(image, str(folder / f"{side}_images" / "a.nii.gz"))
        sitk.WriteImage(gland, str(folder / f"{side}_labels" / "a.nii.gz"))
    return folder


@pytest.mark.slow
def test_the_command_writes_a_page_with_its_pictures(tmp_path, capfd):
    out, data = tmp_path / "out", write_pair(tmp_path / "pairs")
    options = ["--cases", "1", "--drawn", "1", "--seed", "7", "--preset", "sample", "--spacing-mm", "3"]
    code = run_app(app, ["simulation-evidence", "--output", str(out), "--data", str(data), *options])
    assert code == 0
    text = (out / "evidence.md").read_text(encoding="utf-8")
    assert text in capfd.readouterr().out
    for words in (
        "rows agree with their source",
        "| speckle: mean / sd of the envelope |",
        "| gland volume: Kolmogorov–Smirnov p |",
        "| least Jacobian determinant in the gland |",
        "| MR: muscle / peripheral zone |",
        "| TRUS: gland / rim around it, blurred |",
    ):
        assert words in text
    assert " nan" not in text
    pictures = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))
    assert pictures == ["cases/seed7.png", "comparison.png", "distributions.png"]
    for name in pictures:
        assert sitk.GetArrayFromImage(sitk.ReadImage(str(out / name))).std() > 20


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--cases", "0"], "ask for one or more"),
        (["--drawn", "0"], "ask for one or more"),
        (["--preset", "wild"], "preset"),
        (["--data", "nowhere"], "holds no pairs"),
    ],
)
def test_evidence_that_cannot_be_made_is_refused(tmp_path, capfd, options, word):
    arguments = ["simulation-evidence", "--output", str(tmp_path / "out"), "--spacing-mm", "3", *options]
    assert run_app(app, arguments) == 2
    message = capfd.readouterr().err
    assert word in message
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()
