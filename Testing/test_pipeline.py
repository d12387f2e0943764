"""The pipeline: injected stages, progress, cancelling, starting positions, unknown axes, warnings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from cases import (
    CENTRE_MM,
    TRUS_GRID,
    TRUTH,
    OrientedNetwork,
    ShiftNetwork,
    ThresholdNetwork,
    install,
    install_all,
    mr_image,
    mr_landmarks,
    mr_mask,
    trus_image,
    trus_landmarks,
    trus_mask,
)
from shapes import ellipsoid, points_mm
from tiny_networks import Turn
from tiny_networks import install as install_tiny

from MRTRUSRegistrationLib import Settings, register
from MRTRUSRegistrationLib.errors import Cancelled, InputError, RegistrationError
from MRTRUSRegistrationLib.geometry import Grid, mask_centroid_mm
from MRTRUSRegistrationLib.measures import dsc
from MRTRUSRegistrationLib.models import Preprocessing
from MRTRUSRegistrationLib.progress import CancelToken, Progress
from MRTRUSRegistrationLib.quality import QualityLimits, quality_warnings
from MRTRUSRegistrationLib.results import Landmarks, Measures, Registration
from MRTRUSRegistrationLib.rigid import rotation_deg, scaled_rotation, turn_deg
from MRTRUSRegistrationLib.transforms import transform_points_mm

CENTROID = Settings(method="centroid")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Threshold segmenters, and a registration model cmsa that moves nothing."""
    return install_all(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def segmented(models: Path) -> Registration:
    return register(mr_image(), trus_image(), settings=replace(CENTROID, models=models))


def _run(**options: object) -> Registration:
    """A run that needs no model: centroids of the given masks."""
    options = {"settings": CENTROID, "mr_gland": mr_mask(), "trus_gland": trus_mask()} | options
    return register(mr_image(), trus_image(), **options)


def _shifted(models: Path, shift_kji: tuple[float, float, float], spacing_mm: float = 2.0) -> Settings:
    install(
        models,
        ShiftNetwork(shift_kji),
        name="shift",
        task="registration",
        modality="MR-TRUS",
        side_vox=40,
        spacing_mm=spacing_mm,
    )
    return Settings(method="shift", models=models)


def test_models_segment_the_glands_on_their_own_grids(segmented: Registration):
    assert Grid.of(segmented.mr_gland.mask).same_as(Grid.of(mr_image()))
    assert Grid.of(segmented.trus_gland.probability).same_as(TRUS_GRID)
    assert dsc(segmented.mr_gland.mask, mr_mask()) > 0.93
    assert dsc(segmented.trus_gland.mask, trus_mask()) > 0.93
    assert set(segmented.provenance["models"]) == {"gland-MR", "gland-TRUS"}


def test_segmentations_of_an_earlier_run_are_taken_as_they_are(segmented: Registration):
    again = register(
        mr_image(),
        trus_image(),
        settings=CENTROID,
        mr_gland=segmented.mr_gland,
        trus_gland=segmented.trus_gland,
    )
    assert again.mr_gland is segmented.mr_gland
    assert again.trus_gland is segmented.trus_gland
    assert set(again.timings_s) == {"align", "resample", "measure"}
    assert again.provenance["models"] == {}
    np.testing.assert_array_equal(
        *map(sitk.GetArrayFromImage, (again.registered_mr, segmented.registered_mr))
    )


def test_one_corrected_mask_spares_only_its_own_segmentation(models: Path):
    result = register(
        mr_image(), trus_image(), settings=replace(CENTROID, models=models), trus_gland=trus_mask()
    )
    assert "segment MR" in result.timings_s
    assert "segment TRUS" not in result.timings_s
    assert result.trus_gland.model is None


def test_an_earlier_alignment_is_taken_as_it_is():
    first = _run()
    again = _run(rigid=first.rigid, settings=Settings(method="rigid"))
    assert again.rigid is first.rigid
    assert "align" not in again.timings_s


def test_a_given_rigid_transform_moves_landmarks_to_the_truth():
    result = _run(rigid=TRUTH, mr_landmarks=mr_landmarks(), trus_landmarks=trus_landmarks())
    assert result.rigid.method == "given"
    assert result.rigid.rotation_deg == pytest.approx(
        np.degrees(np.linalg.norm([0.05, -0.03, 0.07])), abs=0.1
    )
    assert result.measures.values["tre_rms_mm"] < 1e-6
    assert result.measures.values["dsc"] > 0.95


@pytest.mark.parametrize("method", ["initial", "centroid"])
def test_what_only_moves_is_not_told_to_turn(method: str):
    result = _run(settings=Settings(method=method, initial=TRUTH))
    assert rotation_deg(result.rigid.transform) > 5
    assert result.rigid.rotation_deg == 0


@pytest.mark.slow
def test_the_rotation_of_ants_and_of_the_network_are_told_together(tmp_path: Path):
    turn = Turn((0.0, 0.0, 0.2))
    install_tiny(
        turn,
        tmp_path,
        modality="MR-TRUS",
        name="turning",
        grid_vox=(40,) * 3,
        preprocessing=Preprocessing("LPS", (2.0,) * 3),
        settings={"rigid_part": True, "alignment": "rigid"},
    )
    result = _run(settings=Settings(method="turning", models=tmp_path))
    both = turn_deg(result.initial, result.rigid.transform)
    assert result.rigid.method == "network"
    assert result.rigid.rotation_deg == pytest.approx(both, abs=1e-6)
    assert abs(both - turn.angle_deg) > 1


def test_a_given_transform_is_told_from_the_start():
    further = scaled_rotation(TRUTH, 1.25)
    result = _run(rigid=further, settings=replace(CENTROID, initial=TRUTH))
    assert result.rigid.rotation_deg == pytest.approx(rotation_deg(TRUTH) / 4, abs=1e-6)


def test_matched_centroids_coincide():
    result = _run()
    moved = result.transform.TransformPoint(mask_centroid_mm(trus_mask()).tolist())
    np.testing.assert_allclose(moved, mask_centroid_mm(mr_mask()), atol=1e-6)


@pytest.mark.slow
def test_ants_finds_the_rotation_that_centroids_cannot_see():
    landmarks = {"mr_landmarks": mr_landmarks(), "trus_landmarks": trus_landmarks()}
    centroid, rigid = _run(**landmarks), _run(settings=Settings(method="rigid"), **landmarks)
    assert centroid.measures.values["tre_rms_mm"] > 0.5
    assert rigid.measures.values["tre_rms_mm"] < 0.4


@pytest.mark.slow
@pytest.mark.parametrize("shift_kji", [(0.0, 0.0, 1.5), (0.0, -2.0, 0.0), (1.0, 0.5, -0.5)])
def test_a_constant_field_moves_landmarks_by_exactly_that(models: Path, shift_kji: tuple):
    """On an oblique grid: the field is in voxels along (S, P, L), each 2 mm."""
    result = _run(
        settings=_shifted(models, shift_kji),
        rigid=TRUTH,
        mr_landmarks=mr_landmarks(),
        trus_landmarks=trus_landmarks(),
    )
    shift_mm = TRUS_GRID.axes @ np.array(shift_kji[::-1]) * 2.0
    fixed_mm = trus_landmarks().points_mm
    mapped = transform_points_mm(result.transform, fixed_mm)
    np.testing.assert_allclose(mapped, transform_points_mm(TRUTH, fixed_mm + shift_mm), atol=1e-4)
    warped = np.array([row.warped_mm for row in result.measures.landmark_rows])
    np.testing.assert_allclose(warped, fixed_mm - shift_mm, atol=1e-3)
    assert result.measures.values["tre_rms_mm"] == pytest.approx(np.linalg.norm(shift_mm), abs=1e-3)
    assert result.measures.values["displacement_mean_mm"] == pytest.approx(np.linalg.norm(shift_mm), abs=1e-3)
    # Beyond the gland the field fades, which its outermost voxels feel.
    assert result.measures.values["jacobian_min"] == pytest.approx(1, abs=0.1)


@pytest.mark.slow
def test_a_deformation_starts_from_the_rigid_result(models: Path):
    result = _run(
        settings=_shifted(models, (0.0, 0.0, 1.0)),
        rigid=TRUTH,
        mr_landmarks=mr_landmarks(),
        trus_landmarks=trus_landmarks(),
    )
    assert result.rigid_measures.values["tre_rms_mm"] < 1e-6
    assert result.measures.values["tre_rms_mm"] == pytest.approx(2.0, abs=1e-3)
    assert [row.rigid_error_mm for row in result.measures.landmark_rows] == pytest.approx([0, 0, 0], abs=1e-6)


def test_a_field_of_undefined_values_fails(models: Path):
    with pytest.raises(RegistrationError, match="shift"):
        _run(settings=_shifted(models, (0.0, float("nan"), 0.0)), rigid=TRUTH)


@pytest.mark.slow
def test_the_region_follows_permuted_axes(models: Path):
    """A TRUS stored with other axes gives the same transform in world space."""
    settings = _shifted(models, (0.5, -1.0, 1.5))
    stored = [sitk.PermuteAxes(image, [1, 2, 0])[:, ::-1] for image in (trus_image(), trus_mask())]
    results = [
        register(mr_image(), image, settings=settings, mr_gland=mr_mask(), trus_gland=mask, rigid=TRUTH)
        for image, mask in ((trus_image(), trus_mask()), stored)
    ]
    mapped = [transform_points_mm(r.transform, trus_landmarks().points_mm) for r in results]
    np.testing.assert_allclose(mapped[0], mapped[1], atol=1e-3)


def test_stages_are_reported_in_order_and_to_the_end(models: Path):
    seen: list[Progress] = []
    register(mr_image(), trus_image(), settings=Settings(models=models), rigid=TRUTH, progress=seen.append)
    stages = list(dict.fromkeys(progress.stage for progress in seen))
    assert stages == ["segment MR", "segment TRUS", "deform", "resample", "measure"]
    for stage in stages:
        fractions = [progress.fraction for progress in seen if progress.stage == stage]
        assert fractions == sorted(fractions)
        assert (fractions[0], fractions[-1]) == (0.0, 1.0)


def _steps(models: Path) -> list[tuple[str, float]]:
    seen: list[tuple[str, float]] = []
    register(
        mr_image(),
        trus_image(),
        settings=Settings(models=models),
        rigid=TRUTH,
        progress=lambda progress: seen.append((progress.stage, progress.fraction)),
    )
    return seen


@pytest.mark.slow
def test_a_run_can_be_cancelled_between_and_inside_stages(models: Path):
    steps = _steps(models)
    inside = [number for number, (_, fraction) in enumerate(steps) if 0 < fraction < 1]
    between = [number for number, (_, fraction) in enumerate(steps[:-1]) if fraction == 1]
    assert inside
    for number in (*inside, *between[::3]):
        token = CancelToken()
        seen: list[Progress] = []

        def count(
            progress: Progress, seen: list = seen, token: CancelToken = token, last: int = number
        ) -> None:
            seen.append(progress)
            if len(seen) > last:
                token.cancel()

        with pytest.raises(Cancelled):
            register(
                mr_image(),
                trus_image(),
                settings=Settings(models=models),
                rigid=TRUTH,
                progress=count,
                cancel=token,
            )
        assert len(seen) == number + 1


def test_a_token_set_before_stops_the_run_at_once():
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        _run(cancel=token)


def test_world_trusts_the_headers():
    result = _run(settings=Settings(method="initial", initial="world"), mr_landmarks=None)
    np.testing.assert_allclose(result.transform.TransformPoint(CENTRE_MM), CENTRE_MM, atol=1e-9)
    assert result.measures.values["dsc"] == 0
    assert "low_overlap" in {warning.code for warning in result.warnings}


def test_a_transform_as_the_start_is_kept_by_the_method_initial():
    settings = Settings(method="initial", initial=TRUTH)
    result = _run(settings=settings, mr_landmarks=mr_landmarks(), trus_landmarks=trus_landmarks())
    assert result.measures.values["tre_rms_mm"] < 1e-6
    assert result.initial_measures.values["tre_rms_mm"] < 1e-6
    assert result.provenance["settings"]["initial"] == "file"


def test_the_gland_as_the_start_is_a_translation():
    result = _run(settings=Settings(method="initial"))
    matrix = np.reshape(result.rigid.transform.GetMatrix(), (3, 3))
    np.testing.assert_allclose(matrix, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(
        result.transform.TransformPoint(mask_centroid_mm(trus_mask()).tolist()), mask_centroid_mm(mr_mask())
    )


def test_glands_that_lie_apart_are_refused_before_ants_starts():
    with pytest.raises(InputError, match=r"mm apart.*--initial gland"):
        _run(settings=Settings(method="rigid", initial=sitk.TranslationTransform(3, (500.0, 0.0, 0.0))))


def _flat(image: sitk.Image) -> sitk.Image:
    """Half the image: another grid."""
    return image[::2]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"mr_gland": trus_mask()}, "MR lies on another grid"),
        ({"trus_gland": _flat(trus_mask())}, "TRUS lies on another grid"),
        ({"trus_gland": trus_mask() * 0}, "TRUS is empty"),
        (
            {"mr_landmarks": mr_landmarks(), "trus_landmarks": Landmarks(("x",), np.zeros((1, 3)))},
            "correspond",
        ),
        ({"settings": Settings(method="magic")}, "magic"),
        ({"settings": Settings(method="centroid", device="tpu")}, "tpu"),
        ({"rigid": sitk.ScaleTransform(3, (2.0, 2.0, 2.0))}, "rigid"),
    ],
)
def test_what_cannot_be_used_is_refused(changed: dict, named: str):
    with pytest.raises(InputError, match=named):
        _run(**changed)


def test_a_model_that_is_missing_stops_the_run_before_its_first_stage(tmp_path: Path):
    seen: list[Progress] = []
    with pytest.raises(InputError, match="registration"):
        _run(settings=Settings(method="other", models=tmp_path), progress=seen.append)
    assert seen == []


def _stored_as_prs() -> tuple[sitk.Image, sitk.Image]:
    """A TRUS and its gland whose index axes run to P, R and S, under a header that does not say so.

    The image grows brighter towards posterior.
    """
    true_grid = Grid((40, 36, 30), (1.4, 1.5, 1.8), (0.0, 0.0, 0.0), (0.0, -1, 0, 1, 0, 0, 0, 0, 1))
    mask = ellipsoid(true_grid, (17, 12, 15), centre_mm=tuple(true_grid.centre_mm + np.array((2, 3, 1))))
    posterior = points_mm(true_grid)[..., 1] - true_grid.centre_mm[1]
    array = (100 + 700.0 * sitk.GetArrayFromImage(mask) + posterior).astype(np.float32)
    header = Grid(true_grid.size_vox, true_grid.spacing_mm)
    return header.image(array), header.image(sitk.GetArrayFromImage(mask))


@pytest.fixture
def oriented_models(tmp_path: Path) -> Path:
    """A TRUS segmenter that is sure only of an image seen with the right axes; the field is 2 mm to P."""
    install(tmp_path, ThresholdNetwork(), name="mr", task="segmentation", modality="MR")
    install(tmp_path, OrientedNetwork(), name="trus", task="segmentation", modality="TRUS")
    install(
        tmp_path, ShiftNetwork((0, 1, 0)), name="cmsa", task="registration", modality="MR-TRUS", side_vox=40
    )
    return tmp_path


def test_axes_that_the_header_lacks_are_found(oriented_models: Path):
    image, mask = _stored_as_prs()
    result = register(
        mr_image(),
        image,
        settings=Settings(models=oriented_models),
        trus_orientation_known=False,
        rigid=TRUTH,
    )
    assert result.trus_gland.axes == "PRS"
    assert Grid.of(result.trus_gland.mask).same_as(Grid.of(image))
    assert dsc(result.trus_gland.mask, mask) > 0.93
    # Posterior is where the first index axis runs, which the header calls left.
    centre = mask_centroid_mm(mask)
    np.testing.assert_allclose(
        result.deformation.transform.TransformPoint(centre.tolist()),
        centre + np.array((2.0, 0, 0)),
        atol=1e-4,
    )


def test_a_header_that_is_known_is_believed(oriented_models: Path):
    image, _ = _stored_as_prs()
    result = register(mr_image(), image, settings=Settings(models=oriented_models), rigid=TRUTH)
    assert result.trus_gland.axes == ""
    assert result.trus_gland.probability is not None
    assert sitk.GetArrayViewFromImage(result.trus_gland.probability).max() < 0.9


def test_a_mask_given_for_unknown_axes_takes_those_of_public_data(oriented_models: Path):
    image, mask = _stored_as_prs()
    result = register(
        mr_image(),
        image,
        settings=Settings(models=oriented_models),
        trus_gland=mask,
        trus_orientation_known=False,
        rigid=TRUTH,
    )
    assert result.trus_gland.axes == "PRS"


def _measures(**changed: float) -> Measures:
    good = {
        "dsc": 0.9,
        "folds_percent": 0.0,
        "gland_volume_change_percent": 0.0,
        "displacement_p95_mm": 1.0,
        "landmarks_lost": 0.0,
    }
    return Measures(good | changed)


LIMITS = QualityLimits()


@pytest.mark.parametrize(
    ("code", "fine", "bad"),
    [
        ("low_overlap", {"dsc": LIMITS.deformable_dsc}, {"dsc": LIMITS.deformable_dsc - 1e-6}),
        ("folds", {"folds_percent": 0.0}, {"folds_percent": 1e-6}),
        (
            "gland_volume_changed",
            {"gland_volume_change_percent": -LIMITS.volume_change_percent},
            {"gland_volume_change_percent": -LIMITS.volume_change_percent - 1e-6},
        ),
        (
            "gland_volume_changed",
            {"gland_volume_change_percent": LIMITS.volume_change_percent},
            {"gland_volume_change_percent": LIMITS.volume_change_percent + 1e-6},
        ),
        (
            "elastic_rigid_disagree",
            {"displacement_p95_mm": LIMITS.disagreement_mm},
            {"displacement_p95_mm": LIMITS.disagreement_mm + 1e-6},
        ),
        ("landmark_lost", {"landmarks_lost": 0.0}, {"landmarks_lost": 1.0}),
    ],
)
def test_a_warning_starts_at_its_limit(code: str, fine: dict, bad: dict):
    assert quality_warnings(_measures(**fine), deformable=True) == ()
    assert [warning.code for warning in quality_warnings(_measures(**bad), deformable=True)] == [code]


def test_a_rigid_result_has_its_own_limit_of_overlap():
    measures = Measures({"dsc": LIMITS.rigid_dsc})
    assert quality_warnings(measures, deformable=False) == ()
    low = Measures({"dsc": LIMITS.rigid_dsc - 1e-6})
    assert [warning.code for warning in quality_warnings(low, deformable=False)] == ["low_overlap"]


def test_a_large_displacement_is_warned_of_in_the_result(models: Path):
    result = _run(settings=_shifted(models, (0.0, 0.0, 2.6)), rigid=TRUTH)
    assert "elastic_rigid_disagree" in {warning.code for warning in result.warnings}


def test_a_gland_beyond_the_models_region_is_warned_of(models: Path):
    result = _run(settings=_shifted(models, (0.0, 0.0, 0.0), spacing_mm=0.7), rigid=TRUTH)
    assert "gland_larger_than_model" in {warning.code for warning in result.warnings}


def test_a_gland_at_the_border_is_warned_of():
    mask = trus_mask()
    mask[0, 10:20, 10:20] = 1
    codes = {warning.code for warning in _run(trus_gland=mask).warnings}
    assert "trus_gland_at_border" in codes
    assert "mr_gland_at_border" not in codes


def test_glands_of_different_volume_are_warned_of_and_of_other_patients_refused():
    wider = sitk.BinaryDilate(mr_mask(), (2, 2, 1))
    assert "gland_volume_mismatch" in {warning.code for warning in _run(mr_gland=wider).warnings}
    with pytest.raises(InputError, match="same patient"):
        _run(mr_gland=sitk.BinaryDilate(mr_mask(), (7, 7, 4)))
