"""The confidence map: what is changed, by how much, and that the spread is the one that follows."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from shapes import array, cube_grid, ellipsoid, gland_like, overlap, points_mm, turned
from tiny_networks import Shift, Turn, Undefined, install

from MRTRUSRegistrationLib.confidence import (
    ConfidenceMap,
    ConfidenceSettings,
    confidence_map,
    confidence_of_image,
    perturbed_image,
    perturbed_mask,
    perturbed_rigid,
)
from MRTRUSRegistrationLib.deformable import deform_with_network
from MRTRUSRegistrationLib.errors import Cancelled, InputError, RegistrationError
from MRTRUSRegistrationLib.geometry import Grid, mask_centroid_mm, mask_points_mm
from MRTRUSRegistrationLib.gland_surface import GlandSurface
from MRTRUSRegistrationLib.models import InstalledModel, Preprocessing
from MRTRUSRegistrationLib.progress import CancelToken, Progress, Reporter
from MRTRUSRegistrationLib.regions import regions_of_interest
from MRTRUSRegistrationLib.rigid import linear_parts, rotation_deg
from MRTRUSRegistrationLib.transforms import transform_points_mm

OBLIQUE = turned(0.25, -0.2, 0.3)
CENTRE_MM = (8.0, -11.0, 5.0)
RADII_MM = (12.0, 10.0, 11.0)
TRUS_GRID = Grid.centred(np.array(CENTRE_MM), (30, 26, 26), (1.2, 1.3, 1.4), OBLIQUE)
GLAND = ellipsoid(TRUS_GRID, RADII_MM, centre_mm=CENTRE_MM)
IMAGE = TRUS_GRID.image((200 + np.linalg.norm(points_mm(TRUS_GRID), axis=-1)).astype(np.float32))
RIGID = sitk.Euler3DTransform(CENTRE_MM, 0.1, -0.05, 0.2, (20.0, -7.0, 3.0))
MR_GRID = Grid.centred(np.add(CENTRE_MM, (20.0, -7.0, 3.0)), (28, 26, 22), (1.2, 1.2, 1.6), turned(0, 0, 0))
MR_GLAND = ellipsoid(MR_GRID, RADII_MM, centre_mm=tuple(MR_GRID.centre_mm.tolist()))
MR = MR_GRID.image((100 + points_mm(MR_GRID)[..., 0]).astype(np.float32))
STILL = {"outline_mm": 0.0, "rotation_deg": 0.0, "translation_mm": 0.0, "log_gamma": 0.0, "blur_mm": 0.0}


class CentroidPull(torch.nn.Module):
    """Shifts everything by half of the distance between the regions' centres of mass, along the last axis."""

    def forward(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        place = torch.arange(fixed.shape[4], dtype=torch.float32, device=fixed.device)
        gap = (moving * place).sum() / moving.sum() - (fixed * place).sum() / fixed.sum()
        zero = torch.zeros_like(fixed)
        return torch.cat([zero, zero, zero + 0.5 * gap], dim=1)


class UndefinedWhereBright(torch.nn.Module):
    """Goes wrong on about every other repeat: when the MR is brighter than it is undisturbed."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        mean = moving.sum() / (moving > 0).sum()
        bad = torch.where(mean > self.limit, torch.tensor(float("nan")), torch.tensor(0.0))
        return torch.cat([fixed, fixed, fixed], dim=1) * 0 + bad


def model(network: torch.nn.Module, folder: Path) -> InstalledModel:
    return install(
        network,
        folder,
        modality="MR-TRUS",
        grid_vox=(28, 24, 26),
        preprocessing=Preprocessing("LPS", (1.6, 1.6, 1.6)),
        settings={"intensity_floor": 0.5},
    )


def run(installed: InstalledModel, *, reporter: Reporter | None = None, **settings: float) -> ConfidenceMap:
    arguments = (MR, IMAGE, MR_GLAND, GLAND, RIGID)
    return confidence_map(
        *arguments,
        installed,
        reference=deform_with_network(*arguments, installed),
        settings=ConfidenceSettings(**(STILL | settings)),  # type: ignore[arg-type]
        reporter=reporter,
    )


# --- the map -------------------------------------------------------------------------------------------


def test_repeats_start_from_what_the_network_was_given(tmp_path: Path) -> None:
    """A network that found the rigid part itself would else be given a pair that it has turned already."""
    network = model(Turn((0.2, -0.1, 0.1)), tmp_path)
    arguments = MR, IMAGE, MR_GLAND, GLAND
    split = deform_with_network(*arguments, RIGID, network, split_rigid=True)
    assert split.alignment is not None
    settings = ConfidenceSettings(perturbations=2, **STILL)  # type: ignore[arg-type]
    turned_to = split.alignment.transform
    found = confidence_map(*arguments, turned_to, network, reference=split, settings=settings)
    assert found.mean_mm == 0
    assert found.offset_p95_mm == pytest.approx(0, abs=0.2)
    assert split.alignment.rotation_deg > 10


def test_without_any_change_there_is_no_spread(tmp_path: Path) -> None:
    found = run(model(CentroidPull(), tmp_path), perturbations=2)
    assert (found.mean_mm, found.p95_mm) == (0, 0)
    # The outlines were sampled anew, which is not quite the same.
    assert found.offset_p95_mm == pytest.approx(0, abs=0.02)
    assert (found.perturbations, found.failed) == (2, 0)


@pytest.mark.slow
def test_moved_starts_that_a_network_leaves_are_the_spread(tmp_path: Path) -> None:
    """A network that always answers alike keeps each start's shift: the spread is theirs."""
    found = run(model(Shift((0.0, 0.0, 0.0)), tmp_path), perturbations=4, translation_mm=1.5, seed=3)
    starts = [
        perturbed_rigid(
            RIGID,
            mask_centroid_mm(GLAND),
            ConfidenceSettings(**(STILL | {"translation_mm": 1.5})),
            repeat_rng(3, number),
        )
        for number in range(4)
    ]
    places = np.array([start.TransformPoint(CENTRE_MM) for start in starts])
    expected = np.sqrt(places.var(axis=0, ddof=1).sum())
    inside = array(GLAND) > 0
    np.testing.assert_allclose(array(found.image)[inside], expected, rtol=1e-4)
    assert found.mean_mm == pytest.approx(expected, rel=1e-4)
    assert found.p95_mm == pytest.approx(expected, rel=1e-4)
    offset = np.linalg.norm(places.mean(axis=0) - RIGID.TransformPoint(CENTRE_MM))
    assert found.offset_p95_mm == pytest.approx(offset, rel=1e-3)


def repeat_rng(seed: int, number: int) -> np.random.Generator:
    """The generator of a repeat where it comes to the rigid transform."""
    rng = np.random.default_rng([seed, number])
    still = ConfidenceSettings(**STILL)
    for image in (MR, IMAGE):
        perturbed_image(image, (0.5, 99.5), still, rng)
    for mask in (MR_GLAND, GLAND):
        perturbed_mask(mask, still, rng)
    return rng


def test_turned_starts_spread_more_further_from_the_centre(tmp_path: Path) -> None:
    found = run(model(Shift((0.0, 0.0, 0.0)), tmp_path), perturbations=5, rotation_deg=3.0)
    inside = array(GLAND) > 0
    values = array(found.image)[inside]
    distance = np.linalg.norm(mask_points_mm(GLAND) - np.array(CENTRE_MM), axis=1)
    assert values[distance < 1.5].max() < 0.3
    assert values[distance > 9].mean() == pytest.approx(10 * np.deg2rad(3.0) * np.sqrt(2), rel=0.5)
    assert values[distance > 9].mean() > 5 * values[distance < 1.5].mean()


@pytest.mark.slow
def test_a_network_that_undoes_the_start_spreads_less(tmp_path: Path) -> None:
    """The total maps are compared, not the fields: half of what is undone along one axis is gone."""
    still = run(model(Shift((0.0, 0.0, 0.0)), tmp_path / "a"), perturbations=4, translation_mm=2.0)
    pulled = run(model(CentroidPull(), tmp_path / "b"), perturbations=4, translation_mm=2.0)
    assert 0.3 * still.mean_mm < pulled.mean_mm < 0.97 * still.mean_mm


def test_the_map_lies_on_the_trus_and_says_nothing_outside_the_gland(tmp_path: Path) -> None:
    found = run(model(CentroidPull(), tmp_path), perturbations=3, outline_mm=1.0, rotation_deg=2.0)
    assert Grid.of(found.image).same_as(TRUS_GRID)
    assert found.image.GetPixelID() == sitk.sitkFloat32
    inside = array(GLAND) > 0
    values = array(found.image)
    assert not values[~inside].any()
    assert values[inside].min() > 0
    assert found.mean_mm == pytest.approx(values[inside].mean(), rel=1e-5)
    assert found.p95_mm == pytest.approx(np.percentile(values[inside], 95), rel=1e-5)
    again = confidence_of_image(found.image, GLAND)
    assert (again.mean_mm, again.p95_mm) == (found.mean_mm, found.p95_mm)


@pytest.mark.slow
def test_the_seed_decides_every_bit(tmp_path: Path) -> None:
    installed = model(CentroidPull(), tmp_path)
    changes = {"perturbations": 2, "outline_mm": 1.0, "rotation_deg": 2.0, "log_gamma": 0.2, "blur_mm": 0.5}
    first, again = (run(installed, seed=5, **changes) for _ in range(2))
    np.testing.assert_array_equal(array(first.image), array(again.image))
    other = run(installed, seed=6, **changes)
    assert not np.allclose(array(first.image), array(other.image), atol=0.05)


def test_a_map_is_of_its_own_grid_and_a_gland() -> None:
    with pytest.raises(ValueError, match="same grid"):
        confidence_of_image(MR, GLAND)
    with pytest.raises(ValueError, match="gland is empty"):
        confidence_of_image(IMAGE, TRUS_GRID.blank())


# --- progress, cancelling, failures --------------------------------------------------------------------


def test_progress_runs_once_from_start_to_end(tmp_path: Path) -> None:
    seen: list[Progress] = []
    run(model(CentroidPull(), tmp_path), perturbations=2, reporter=Reporter(seen.append))
    assert {progress.stage for progress in seen} == {"confidence"}
    fractions = [progress.fraction for progress in seen]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert {"Repeat 1 of 2", "Repeat 2 of 2"} <= {progress.message for progress in seen}


def test_cancelling_stops_between_repeats(tmp_path: Path) -> None:
    token = CancelToken()
    seen: list[str] = []

    def stop_in_the_second(progress: Progress) -> None:
        seen.append(progress.message)
        if progress.message.startswith("Repeat 2"):
            token.cancel()

    with pytest.raises(Cancelled):
        run(model(CentroidPull(), tmp_path), perturbations=5, reporter=Reporter(stop_in_the_second, token))
    assert not any(message.startswith("Repeat 3") for message in seen)


@pytest.mark.slow
def test_repeats_that_fail_are_counted(tmp_path: Path) -> None:
    """Gamma makes the MR brighter or darker; the network fails on the brighter ones."""
    card = model(Shift((0.0, 0.0, 0.0)), tmp_path / "any").card
    moving = array(regions_of_interest(MR, IMAGE, MR_GLAND, GLAND, RIGID, card).moving)
    installed = model(UndefinedWhereBright(moving.sum() / (moving > 0).sum() + 0.005), tmp_path)
    found = run(installed, perturbations=6, log_gamma=0.4, translation_mm=0.5, seed=1)
    assert 0 < found.failed < 5
    assert found.mean_mm > 0.1


def test_when_all_repeats_fail_there_is_no_map(tmp_path: Path) -> None:
    reference = deform_with_network(
        MR, IMAGE, MR_GLAND, GLAND, RIGID, model(Shift((0.0, 0.0, 0.0)), tmp_path / "a")
    )
    settings = ConfidenceSettings(perturbations=2)
    undefined = model(Undefined(), tmp_path / "b")
    with pytest.raises(RegistrationError, match="failed under small changes"):
        confidence_map(MR, IMAGE, MR_GLAND, GLAND, RIGID, undefined, reference=reference, settings=settings)


@pytest.mark.parametrize("count", [1, 0, -3])
def test_too_few_perturbations_are_refused(count: int) -> None:
    with pytest.raises(InputError, match=f"from {count} perturbations is not possible; use 2 or more"):
        ConfidenceSettings(perturbations=count)


# --- what is changed -----------------------------------------------------------------------------------


def test_an_outline_moves_by_what_was_asked_for() -> None:
    """The surface of a ball moves in and out by 1 mm (one standard deviation), and not by more on average."""
    grid = cube_grid(56, 1.0, OBLIQUE)
    ball = ellipsoid(grid, (20.0,) * 3)
    settings = ConfidenceSettings(outline_mm=1.0)
    moves = []
    for number in range(5):
        moved = perturbed_mask(ball, settings, np.random.default_rng(number))
        surface = GlandSurface.of(moved).points_mm
        moves.append(np.linalg.norm(surface, axis=1) - 20.0)
    assert np.concatenate(moves).std() == pytest.approx(1.0, abs=0.2)
    assert np.concatenate(moves).mean() == pytest.approx(0.0, abs=0.25)


def test_an_outline_moves_smoothly() -> None:
    """Places 3 mm apart move together, places 30 mm apart do not."""
    ball = ellipsoid(cube_grid(56, 1.0), (20.0,) * 3)
    near, far = [], []
    for number in range(5):
        moved = perturbed_mask(ball, ConfidenceSettings(outline_mm=1.5), np.random.default_rng(number))
        surface = GlandSurface.of(moved).points_mm
        move = np.linalg.norm(surface, axis=1) - 20.0
        pairs = np.random.default_rng(0).integers(0, len(surface), (60000, 2))
        gap = np.linalg.norm(surface[pairs[:, 0]] - surface[pairs[:, 1]], axis=1)
        near.append(move[pairs[gap < 3]])
        far.append(move[pairs[gap > 30]])
    assert np.corrcoef(np.concatenate(near).T)[0, 1] > 0.8
    assert abs(np.corrcoef(np.concatenate(far).T)[0, 1]) < 0.3


def test_an_outline_that_does_not_move_is_the_same() -> None:
    gland = gland_like(cube_grid(56, 1.0))
    same = perturbed_mask(gland, ConfidenceSettings(outline_mm=0.0), np.random.default_rng(0))
    assert overlap(same, gland) > 0.99


@pytest.mark.parametrize("spacing", [(0.5, 0.5, 3.0), (1.0, 1.0, 1.0)])
def test_the_volume_stays_on_average_on_thick_slices_too(spacing: tuple[float, float, float]) -> None:
    size = tuple(int(60 / s) for s in spacing)
    gland = ellipsoid(Grid.centred(np.zeros(3), size, spacing, turned(0, 0, 0)), (18, 16, 20))
    ratios = [
        array(perturbed_mask(gland, ConfidenceSettings(), np.random.default_rng(number))).sum()
        / array(gland).sum()
        for number in range(6)
    ]
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.06)
    assert np.std(ratios) > 0.005


def test_an_empty_gland_is_refused() -> None:
    with pytest.raises(InputError, match="mask of the gland is empty"):
        perturbed_mask(TRUS_GRID.blank(), ConfidenceSettings(), np.random.default_rng(0))


def test_a_start_turns_about_the_glands_centre_by_what_was_asked_for() -> None:
    rng = np.random.default_rng(0)
    turns, shifts = [], []
    for _ in range(400):
        changed = perturbed_rigid(RIGID, np.array(CENTRE_MM), ConfidenceSettings(), rng)
        relative = sitk.CompositeTransform([RIGID.GetInverse(), changed])
        turns.append(rotation_deg(relative))
        shifts.append(np.subtract(relative.TransformPoint(CENTRE_MM), CENTRE_MM))
    assert np.sqrt(np.mean(np.square(turns)) / 3) == pytest.approx(2.0, rel=0.07)
    np.testing.assert_allclose(np.std(shifts, axis=0), 1.0, rtol=0.12)
    matrix, _ = linear_parts(changed)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-9)


def test_a_start_without_change_is_the_same_map() -> None:
    same = perturbed_rigid(RIGID, np.array(CENTRE_MM), ConfidenceSettings(**STILL), np.random.default_rng(0))
    points = np.random.default_rng(1).uniform(-40, 40, (9, 3))
    np.testing.assert_allclose(transform_points_mm(same, points), transform_points_mm(RIGID, points))


def test_grey_values_keep_their_order_and_range() -> None:
    settings = ConfidenceSettings(log_gamma=0.3, blur_mm=0.0)
    changed = array(perturbed_image(IMAGE, (0.0, 100.0), settings, np.random.default_rng(2)))
    original = array(IMAGE)
    order = np.argsort(original, axis=None)
    assert np.all(np.diff(changed.ravel()[order]) >= 0)
    assert (changed.min(), changed.max()) == (0, 1)
    scaled = (original - original.min()) / np.ptp(original)
    middle = (scaled > 0.3) & (scaled < 0.7)
    gamma = np.log(changed[middle]) / np.log(scaled[middle])
    np.testing.assert_allclose(gamma, gamma.mean(), rtol=1e-3)
    assert abs(gamma.mean() - 1) > 0.02


def test_blur_makes_noise_smaller() -> None:
    noise = TRUS_GRID.image(np.random.default_rng(0).random(TRUS_GRID.size_vox[::-1]).astype(np.float32))
    settings = ConfidenceSettings(log_gamma=0.0, blur_mm=2.0)
    changed = array(perturbed_image(noise, (0.0, 100.0), settings, np.random.default_rng(2)))
    assert changed.std() < 0.9 * array(noise).std()
