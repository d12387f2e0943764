"""Coordinates in the gland: the same in both images, learnt, and shown to a registration network."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from cases import trus_image, trus_mask
from row_case import registration_content
from shapes import array
from test_structures import finished, seeing
from tiny_networks import install

from MRTRUSRegistrationLib.deformable import deform_with_network
from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import Grid
from MRTRUSRegistrationLib.models import InstalledModel, Preprocessing, read_card
from MRTRUSRegistrationLib.segmentation import around_gland
from MRTRUSRegistrationLib.structures import seen_structures
from MRTRUSTraining import segmentation_training
from MRTRUSTraining.data.augmentation import SpatialRange, flip_displacement
from MRTRUSTraining.data.cases import find_cases
from MRTRUSTraining.data.fresh import loaded
from MRTRUSTraining.export import export_registration, export_segmentation
from MRTRUSTraining.gland_coordinates import GlandChart
from MRTRUSTraining.networks.cmsa import CMSANet, MirrorAveraged
from MRTRUSTraining.networks.coordinate_motion import coordinate_motion, voxel_places
from MRTRUSTraining.networks.vnet import GlandProbability, VNet
from MRTRUSTraining.registration_samples import augment
from MRTRUSTraining.registration_samples import prepare_sample as prepare_pair
from MRTRUSTraining.registration_settings import RegistrationSettings
from MRTRUSTraining.registration_training import RegistrationTask
from MRTRUSTraining.row import row_from
from MRTRUSTraining.run import begin_with
from MRTRUSTraining.segmentation_training import (
    SegmentationSample,
    SegmentationSettings,
    SegmentationTask,
    _about_the_gland,
    coordinate_error,
    prepare_sample,
    prepare_samples,
)
from MRTRUSTraining.simulation.cases import simulate, write_case
from MRTRUSTraining.simulation.sampling import sample_case

IDENTITY = sitk.TranslationTransform(3)
SIZE = (24, 20, 28)
NAMES = {"MR": "placed-mr", "TRUS": "placed-trus"}


@pytest.fixture(scope="module")
def case():
    return loaded(simulate(sample_case(5, spacing_mm=2.0)))


def settings(**changes: object) -> SegmentationSettings:
    content = {
        "options": {"widths": (2, 4, 4, 4, 4)},
        "structures": {"transition_zone": 2, "urethra": 1},
        "preprocessing": Preprocessing("LPS", (3.0, 3.0, 3.0)),
        "training_vox": (32, 32, 32),
        "window_vox": (32, 32, 32),
        "coordinates": 2.0,
    }
    return SegmentationSettings("TRUS", **(content | changes))  # type: ignore[arg-type]


# --- the chart -------------------------------------------------------------------------------------------


def test_the_surface_of_an_ellipsoid_is_at_one() -> None:
    grid = Grid.centred(np.array([5.0, -3.0, 40.0]), (40, 44, 48), (1.0, 1.0, 1.0), tuple(np.eye(3).ravel()))
    middle, half = np.array([4.0, -2.0, 42.0]), np.array([15.0, 12.0, 18.0])
    inside = (((grid.points_mm() - middle) / half) ** 2).sum(axis=-1) < 1
    chart = GlandChart.of(grid.image(inside.astype(np.uint8)))
    assert chart.centre_mm == pytest.approx(middle, abs=0.1)
    assert chart.half_extent_mm == pytest.approx(half, rel=0.01)
    # The order is that of the array's axes.
    z, y, x = np.moveaxis(sitk.GetArrayFromImage(chart.on(grid)), -1, 0)
    assert np.hypot(np.hypot(x, y), z)[inside].max() == pytest.approx(1, abs=0.03)
    assert np.ptp(x, axis=(0, 1)) == pytest.approx(0, abs=1e-5)
    assert np.diff(z, axis=0) == pytest.approx(1 / half[2], rel=0.01)


def test_the_same_tissue_has_the_same_coordinates(case) -> None:
    """Voxels of the gland in the TRUS have the coordinates of where the true map takes them."""
    chart = GlandChart.of(case.mr_gland)
    grid = Grid.of(case.trus)
    found = chart.on(grid, case.truth)
    inside = np.argwhere(array(case.trus_gland) > 0)[::501]
    for k, j, i in inside:
        point = case.truth.TransformPoint(case.trus.TransformIndexToPhysicalPoint((int(i), int(j), int(k))))
        expected = (np.array(point) - chart.centre_mm) / chart.half_extent_mm
        assert found[int(i), int(j), int(k)][::-1] == pytest.approx(expected, abs=1e-4)
        assert np.linalg.norm(expected) < 1.6


# --- learning them ---------------------------------------------------------------------------------------


def test_a_sample_without_a_true_map_is_refused(case) -> None:
    with pytest.raises(InputError, match="no true map"):
        prepare_sample(replace(case, truth=None), settings())


def test_drawn_coordinates_follow_the_image(case) -> None:
    """Whatever the random change, the drawn coordinates are nearly an affine function of the place whose
    left–right part still grows to the patient's left: a flipped volume has flipped coordinates."""
    calm = SpatialRange(rotation_deg=4.0, log_scale=0.0, translation_vox=1.0, elastic_vox=0.0)
    method = settings(spatial=calm)
    task = SegmentationTask(method, [[prepare_sample(case, method)]], [])
    for seed in range(4):
        _, drawn = task._draw(np.random.default_rng(seed))
        inside = drawn[0, 0] < 0.5
        assert int(inside.sum()) > 100
        coordinates = drawn[0, -3:, inside]
        places = voxel_places(drawn)[:, inside]
        slopes = torch.linalg.lstsq((places - places.mean(1, keepdim=True)).T, coordinates.T).solution
        assert (slopes.diag() > 0.03).all(), slopes
        assert (slopes - slopes.diag().diag()).abs().max() < 0.5 * slopes.diag().min()


def test_the_loss_counts_the_gland_alone() -> None:
    truth = torch.zeros(1, 3, 4, 4, 4)
    found = truth.clone()
    found[0, 1, 0] = 2.0
    inside = torch.zeros(1, 4, 4, 4)
    inside[:, :2] = 1.0
    assert float(coordinate_error(found, truth, inside)) == pytest.approx(1.0, abs=1e-3)
    assert float(coordinate_error(found, truth, 1 - inside)) == pytest.approx(0.0, abs=2e-3)


def test_what_lies_beyond_the_gland_has_no_coordinates_to_learn(
    case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Coordinates that are wrong in the seminal vesicles alone are as good as right ones."""
    method = settings(structures={"transition_zone": 2, "urethra": 1, "seminal_vesicles": 7})
    sample = prepare_sample(case, method)
    labels = array(sample.labels)
    assert (labels == 4).sum() > 20
    task = SegmentationTask(method, [[sample]], [sample])
    _, drawn = task._draw(np.random.default_rng(0))
    vesicles = (drawn[:, 4] > 0.5).unsqueeze(1)
    assert int(vesicles.sum()) > 20
    places = torch.where(vesicles, drawn[:, -3:] + 9, drawn[:, -3:])
    output = torch.cat([drawn[:, :-3], places], dim=1)
    _, figures = task._loss_with_coordinates(output, drawn)
    assert figures["coordinates"] == pytest.approx(0, abs=2e-3)
    elsewhere = torch.cat([drawn[:, :-3], drawn[:, -3:] + 9], dim=1)
    assert task._loss_with_coordinates(elsewhere, drawn)[1]["coordinates"] == pytest.approx(9 * 3**0.5)

    def probabilities(prepared: sitk.Image, *_: object, **__: object) -> list[sitk.Image]:
        """Right classes, and coordinates that are wrong in the vesicles alone."""
        seen = _about_the_gland(sample, method.window_vox, [0, 1])
        assert Grid.of(seen.labels) == Grid.of(prepared)
        classes = [sitk.Cast(seen.labels == value, sitk.sitkFloat32) for value in range(1, 5)]
        wrong = 9 * classes[-1]
        axes = [sitk.VectorIndexSelectionCast(seen.coordinates, axis, sitk.sitkFloat32) for axis in range(3)]
        return [*classes, *(each + wrong for each in axes)]

    monkeypatch.setattr(segmentation_training, "class_probabilities", probabilities)
    assert task.validate(task.network)["coordinates_error_simulated"] == pytest.approx(0, abs=2e-3)


@pytest.mark.slow
def test_coordinates_are_learnt(case, tmp_path: Path) -> None:
    """A few steps lower their error; a run's folder, the cache and the exported model carry them."""
    torch.manual_seed(0)
    method = settings(spatial=SpatialRange(2.0, 0.0, 0.0, 0.0, 0.0))
    sample = prepare_sample(case, method)
    task = SegmentationTask(method, [[sample]], [sample])
    before = SegmentationTask(replace(method, coordinates=0.0), [[sample]], [])
    finished(tmp_path / "gland", before.network)
    # A run without them is a beginning for one with them.
    begin_with(tmp_path / "gland", task.network)
    torch.testing.assert_close(task.network.state_dict()["head.weight"], before.network.head.weight)
    optimiser = torch.optim.Adam(task.network.parameters(), lr=5e-3)
    first = task.validate(task.network)["coordinates_error_simulated"]
    for step in range(25):
        loss, figures = task.loss(task.network, [np.random.default_rng(step)])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert set(figures) == {"classes", "coordinates"}
    validated = task.validate(task.network.eval())
    assert validated["coordinates_error_simulated"] < 0.8 * first
    finished(tmp_path / "run", task.network)
    card = export_segmentation(tmp_path / "run", method, tmp_path / "models", name="placed-trus")
    model = InstalledModel(read_card(card), card)
    seen = seen_structures(case.trus, model, case.trus_gland)
    assert (len(seen.probabilities), len(seen.coordinates)) == (2, 3)
    inside = array(case.trus_gland) > 0
    truth = sitk.GetArrayFromImage(GlandChart.of(case.mr_gland).on(Grid.of(case.trus), case.truth))[inside]
    found = np.stack([array(each)[inside] for each in seen.coordinates], axis=-1)
    error = np.linalg.norm(found - truth, axis=-1).mean()
    # The exported network is averaged with its mirror image and has half precision.
    assert error == pytest.approx(validated["coordinates_error_simulated"], rel=0.3)


@pytest.mark.slow
def test_the_cache_keeps_coordinates(case, tmp_path: Path) -> None:
    write_case(simulate(sample_case(5, spacing_mm=2.0)), tmp_path / "data", 0)
    cases = find_cases(tmp_path / "data", "muregpro")
    for _ in range(2):
        (sample,) = prepare_samples(cases, settings(), tmp_path / "cache")
        expected = prepare_sample(case, settings()).coordinates
        assert sample.coordinates is not None
        np.testing.assert_allclose(
            sitk.GetArrayFromImage(sample.coordinates), sitk.GetArrayFromImage(expected), atol=1e-4
        )
    (plain,) = prepare_samples(cases, settings(coordinates=0.0), tmp_path / "cache")
    assert plain.coordinates is None


def test_a_mirrored_image_has_mirrored_coordinates() -> None:
    torch.manual_seed(0)
    network = GlandProbability(VNet((4, 8, 8, 8, 8), 0.0, 3, True), mirror=True, coordinates=3).eval()
    image = torch.rand(1, 1, 32, 32, 32)
    with torch.inference_mode():
        found, mirrored = network(image), network(image.flip(-1))
    assert found.shape == (1, 5, 32, 32, 32)
    torch.testing.assert_close(mirrored[:, 2:], flip_displacement(found[:, 2:]), atol=1e-5, rtol=0)
    torch.testing.assert_close(mirrored[:, :2], found[:, :2].flip(-1), atol=1e-5, rtol=0)
    assert float(found[:, 4].std()) > 1e-4


# --- the window about the gland --------------------------------------------------------------------------


def test_the_window_lies_about_the_gland() -> None:
    """In a volume much larger, also where the gland lies at its edge; training has the same."""
    grid = Grid((40, 40, 40), (2.0, 2.0, 2.0), (-7.0, 3.0, 11.0), tuple(np.eye(3).ravel()))
    inside = np.zeros((40, 40, 40), np.uint8)
    inside[30:38, 10:20, 2:7] = 1
    gland = grid.image(inside)
    window = around_gland(sitk.Cast(gland, sitk.sitkFloat32), gland, (16, 24, 12))
    assert window.GetSize() == (16, 24, 12)
    assert array(window).sum() == inside.sum()
    # A structure in the gland (2) belongs to it, one beyond it (3) does not.
    inside[31, 12, 3], inside[4:8, 30:35, 20] = 2, 3
    labels = grid.image(inside)
    sample = _about_the_gland(SegmentationSample("case", "real", gland, labels, labels), (16, 24, 12), [0])
    np.testing.assert_array_equal(array(sample.labels) > 0, array(window) > 0)
    np.testing.assert_array_equal(array(sample.prepared), array(window))
    whole = around_gland(gland, gland * 0, (16, 24, 12))
    assert whole.GetSize() == (40, 40, 40)


# --- what they are for -----------------------------------------------------------------------------------


def turn(axis: int, angle_deg: float) -> torch.Tensor:
    u, v = (each for each in range(3) if each != axis)
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[u, u] = matrix[v, v] = math.cos(math.radians(angle_deg))
    matrix[v, u] = math.sin(math.radians(angle_deg))
    matrix[u, v] = -matrix[v, u]
    return matrix


ROTATION = turn(0, 12.0) @ turn(1, -7.0) @ turn(2, 5.0)
SHIFT = torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64)


def seen_at(places: torch.Tensor) -> torch.Tensor:
    """An image, a structure, the gland and its coordinates where voxels show these places (3, K, J, I)."""
    coordinates = (places / torch.tensor([9.0, 7.0, 11.0]).view(3, 1, 1, 1)).float()
    gland = (coordinates.square().sum(0, keepdim=True) < 1).float()
    return torch.cat([gland, 0 * gland, gland, coordinates])[None]


def turned_pair() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Moving and fixed inputs, and where the fixed voxels lie in the moving volume."""
    places = voxel_places(torch.zeros(1, 1, *SIZE))
    reached = (ROTATION @ places.flatten(1).double() + SHIFT).view(3, *SIZE)
    return seen_at(places), seen_at(reached), reached


def test_a_rigid_motion_is_found_exactly() -> None:
    moving, fixed, _ = turned_pair()
    rotation, shift = coordinate_motion(moving, fixed)
    torch.testing.assert_close(rotation[0], ROTATION, atol=1e-5, rtol=0)
    torch.testing.assert_close(shift[0], SHIFT, atol=1e-4, rtol=0)


def test_curved_coordinates_do_no_harm() -> None:
    """Coordinates need not be straight: what both images have alike does not count."""
    moving, fixed, _ = turned_pair()
    for volume in (moving, fixed):
        volume[:, -3:] = volume[:, -3:] + 0.1 * volume[:, -3:].square()
    rotation, _ = coordinate_motion(moving, fixed)
    angle = math.degrees(math.acos(float((torch.trace(rotation[0] @ ROTATION.T) - 1) / 2)))
    assert angle < 1.0


def middle(volume: torch.Tensor) -> torch.Tensor:
    return voxel_places(volume)[:, volume[0, -4] > 0.5].double().mean(1)


@pytest.mark.parametrize("emptied", ["coordinates", "glands"])
def test_without_glands_or_coordinates_nothing_turns(emptied: str) -> None:
    moving, fixed, _ = turned_pair()
    for volume in (moving, fixed):
        volume[:, -3 if emptied == "coordinates" else -4 :] = 0.0
    rotation, shift = coordinate_motion(moving, fixed)
    torch.testing.assert_close(rotation[0], torch.eye(3).double(), atol=1e-3, rtol=0)
    # Coordinates that tell nothing leave the middles of the glands.
    expected = torch.zeros(3).double() if emptied == "glands" else middle(moving) - middle(fixed)
    torch.testing.assert_close(shift[0, :, 0], expected, atol=0.01, rtol=0)


@pytest.mark.parametrize("empty", [0, 1], ids=["moving", "fixed"])
def test_one_empty_gland_moves_nothing_and_no_other_pair(empty: int) -> None:
    pair = turned_pair()[:2]
    alone = coordinate_motion(*pair)
    blank = [each.clone() for each in pair]
    blank[empty][:, -4:] = 0.0
    moving, fixed = (torch.cat(both) for both in zip(pair, blank, strict=True))
    rotation, shift = coordinate_motion(moving, fixed)
    torch.testing.assert_close(rotation[1], torch.eye(3).double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(shift[1], torch.zeros(3, 1).double(), atol=1e-3, rtol=0)
    torch.testing.assert_close((rotation[0], shift[0]), (alone[0][0], alone[1][0]), atol=1e-9, rtol=0)


@pytest.mark.slow
def test_the_network_begins_with_the_motion_of_its_coordinates() -> None:
    size = [-(-n // 16) * 16 for n in SIZE]
    network = CMSANet(channels=6, coordinates=True, normalisation="instance").eval()
    places = voxel_places(torch.zeros(1, 1, *size))
    reached = (ROTATION @ places.flatten(1).double() + SHIFT).view(3, *size)
    moving, fixed = seen_at(places), seen_at(reached)
    averaged = MirrorAveraged(network, coordinates=True).eval()
    with torch.inference_mode():
        for each in (network, averaged, torch.jit.script(averaged)):
            found = each(moving, fixed)[0] + places
            # The flow head begins near zero.
            torch.testing.assert_close(found, reached.float(), atol=2e-3, rtol=0)
        mirrored = [torch.cat([v[:, :-1], -v[:, -1:]], dim=1).flip(-1) for v in (moving, fixed)]
        torch.testing.assert_close(
            averaged(*mirrored), flip_displacement(averaged(moving, fixed)), atol=1e-4, rtol=0
        )


def test_a_network_with_coordinates_needs_their_channels() -> None:
    with pytest.raises(ValueError, match="at least 5"):
        CMSANet(channels=4, coordinates=True)


class Placed(torch.nn.Module):
    """Gland and one structure nowhere in particular; coordinates from the middle of what is bright."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        places = voxel_places(image)
        weight = (image[0, 0] > 0.5).float()
        middle = (places * weight).flatten(1).sum(1) / weight.sum()
        coordinates = ((places - middle.view(3, 1, 1, 1)) / 12.0)[None]
        return torch.cat([0 * image, image, coordinates], dim=1)


def placing(folder: Path, modality: str, *, window: int = 48) -> InstalledModel:
    return install(
        Placed(),
        folder,
        modality=modality,
        grid_vox=(window,) * 3,
        preprocessing=Preprocessing("LPS", (1.5, 1.5, 1.5)),
        settings={"structures": ["zone"]},
        name=NAMES[modality],
        task="structures",
    )


@pytest.mark.slow
def test_the_pipeline_shows_the_network_coordinates(tmp_path: Path) -> None:
    """An MR that is the TRUS moved by 6 mm, with a mask that was not: coordinates alone tell of it."""
    installed = _registrator(tmp_path)
    for modality in NAMES:
        placing(tmp_path, modality)
    mr = sitk.Resample(trus_image(), sitk.TranslationTransform(3, (0.0, 0.0, 6.0)))
    found = deform_with_network(mr, trus_image(), trus_mask(), trus_mask(), IDENTITY, installed)
    middle = trus_mask().TransformContinuousIndexToPhysicalPoint(
        [float(n) for n in np.argwhere(array(trus_mask()) > 0).mean(axis=0)[::-1]]
    )
    moved = np.array(found.transform.TransformPoint(middle)) - middle
    assert moved == pytest.approx([0.0, 0.0, -6.0], abs=1.0)


def test_models_without_coordinates_are_refused(tmp_path: Path) -> None:
    installed = _registrator(tmp_path, names={"MR": "seen-mr", "TRUS": "seen-trus"})
    for modality in NAMES:
        seeing(tmp_path, modality)
    with pytest.raises(InputError, match="wants coordinates"):
        deform_with_network(trus_image(), trus_image(), trus_mask(), trus_mask(), IDENTITY, installed)


def _registrator(folder: Path, names: dict[str, str] | None = None) -> InstalledModel:
    return install(
        CMSANet(channels=6, coordinates=True, normalisation="instance").eval(),
        folder,
        modality="MR-TRUS",
        grid_vox=(32, 32, 32),
        preprocessing=Preprocessing("LPS", (2.5, 2.5, 2.5)),
        settings={"structures": names or NAMES, "context": 1.0, "coordinates": True},
        name="row",
    )


@pytest.mark.slow
def test_a_registration_is_trained_with_coordinates(
    case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for modality in NAMES:
        placing(tmp_path / "models", modality)
    monkeypatch.setenv("MRTRUS_MODELS", str(tmp_path / "models"))
    content = registration_content(
        network="cmsa",
        options={"channels": 6, "coordinates": True, "integration_steps": 2},
        structures=NAMES,
        coordinates=True,
    )
    method = row_from(content, "test").method
    assert isinstance(method, RegistrationSettings)
    sample = prepare_pair(case, method)
    assert sample.moving_image.shape[1] == 1 + 1 + 3
    for seed in range(4):
        changed = augment(sample, np.random.default_rng(seed), method)
        gland = changed.fixed_labels[0, 0] > 0.5
        left_right = changed.fixed_image[0, -1]
        places = voxel_places(changed.fixed_image)[2]
        # Also of a mirrored pair it grows along the axis.
        assert float(torch.corrcoef(torch.stack([left_right[gland], places[gland]]))[0, 1]) > 0.5
    task = RegistrationTask(method, [[sample]], [sample])
    loss, _ = task.loss(task.network, [np.random.default_rng(0)] * 2)
    assert torch.isfinite(loss)
    finished(tmp_path / "run", task.network)
    card = read_card(export_registration(tmp_path / "run", method, tmp_path / "models", name="row"))
    assert card.settings["coordinates"] is True
    for modality in NAMES:
        seeing(tmp_path / "models", modality)
    untold = replace(method, structures={"MR": "seen-mr", "TRUS": "seen-trus"})
    with pytest.raises(InputError, match="do not tell"):
        prepare_pair(case, untold)
