"""The other model for sharp volumes, which a card may name: how detail is measured, and who is chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from cases import CENTRE_MM, mr_image, mr_mask, trus_image, trus_mask
from dataset_case import write_dataset
from tiny_networks import Shift, install

from MRTRUSRegistrationLib import Settings, register
from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import Grid
from MRTRUSRegistrationLib.models import (
    InstalledModel,
    Preprocessing,
    detail,
    model_for_detail,
    prepare_image,
)
from MRTRUSRegistrationLib.results import Registration
from MRTRUSTraining.data.cases import find_cases
from MRTRUSTraining.evaluation.evaluate import evaluate
from MRTRUSTraining.networks.vnet import detail as detail_of_tensor

PREPROCESSING = Preprocessing("LPS", (1.5, 1.5, 1.5), smoothing_mm=0.7)
DETAIL = 0.055


def model(
    folder: Path, name: str, shift_vox: tuple[float, float, float], **settings: object
) -> InstalledModel:
    return install(
        Shift(shift_vox),
        folder,
        modality="MR-TRUS",
        grid_vox=(48, 48, 48),
        preprocessing=PREPROCESSING,
        settings=settings,
        name=name,
    )


def both(folder: Path) -> InstalledModel:
    """A model that moves nothing and names another, for sharp volumes, which moves 3 mm to the head."""
    model(folder, "row-sharp", (2.0, 0.0, 0.0))
    return model(folder, "row", (0.0, 0.0, 0.0), sharper={"detail": DETAIL, "model": "row-sharp"})


def speckled() -> sitk.Image:
    """The TRUS of the case with speckle of the size of a voxel."""
    image = trus_image()
    noise = np.random.default_rng(0).rayleigh(1.0, image.GetSize()[::-1])
    return Grid.of(image).image((sitk.GetArrayFromImage(image) * noise).astype(np.float32))


def blurred(image: sitk.Image) -> sitk.Image:
    return sitk.SmoothingRecursiveGaussian(image, 4.0)


# --- detail ----------------------------------------------------------------------------------------------


def test_detail_is_what_the_segmenters_mixture_measures() -> None:
    values = np.random.default_rng(1).random((9, 12, 11)).astype(np.float32)
    values[:, :4] = 0.0
    expected = detail_of_tensor(torch.from_numpy(values)[None, None])
    assert detail(sitk.GetImageFromArray(values)) == pytest.approx(expected.item(), rel=1e-5)


def test_detail_of_a_checkerboard_of_thin_slices() -> None:
    """Slices of 1 and 3 in turn: a mean over three differs from the middle by 4/3, the deviation is 1."""
    values = np.ones((60, 8, 8), np.float32)
    values[1::2] = 3.0
    # At either end the mean over two slices differs by 1 alone.
    expected = (58 * 4 / 3 + 2 * 1) / 60
    assert detail(sitk.GetImageFromArray(values)) == pytest.approx(expected, rel=1e-5)


def test_an_empty_or_constant_image_has_no_detail() -> None:
    assert detail(sitk.GetImageFromArray(np.zeros((4, 5, 6), np.float32))) == 0.0
    assert detail(sitk.GetImageFromArray(np.full((4, 5, 6), 0.5, np.float32))) == pytest.approx(0.0, abs=1e-2)


# --- choice ----------------------------------------------------------------------------------------------


def test_a_sharp_volume_takes_the_other_model(tmp_path: Path) -> None:
    first = both(tmp_path)
    sharp = speckled()
    assert (
        detail(prepare_image(sharp, PREPROCESSING))
        > DETAIL
        > detail(prepare_image(blurred(sharp), PREPROCESSING))
    )
    assert model_for_detail(first, sharp, tmp_path).card.name == "row-sharp"
    assert model_for_detail(first, blurred(sharp), tmp_path) is first


def registered(trus: sitk.Image, folder: Path, method: str) -> Registration:
    settings = Settings(method=method, models=folder, device="cpu")
    rigid = sitk.TranslationTransform(3)
    glands = {"mr_gland": mr_mask(), "trus_gland": trus_mask()}
    return register(mr_image(), trus, settings=settings, rigid=rigid, **glands)  # type: ignore[arg-type]


@pytest.mark.parametrize(("sharp", "used", "moved_mm"), [(True, "row-sharp", 3.0), (False, "row", 0.0)])
def test_the_pipeline_says_which_model_it_used(
    tmp_path: Path, sharp: bool, used: str, moved_mm: float
) -> None:
    both(tmp_path)
    result = registered(speckled() if sharp else blurred(speckled()), tmp_path, "row")
    assert result.deformation is not None
    assert (result.method, result.deformation.method, result.deformation.model) == ("row", "row", used)
    assert list(result.provenance["models"]) == [used]  # type: ignore[call-overload]
    moved = np.subtract(result.deformation.transform.TransformPoint(CENTRE_MM), CENTRE_MM)
    assert np.linalg.norm(moved) == pytest.approx(moved_mm, abs=0.05)


@pytest.mark.slow
def test_the_model_that_runs_says_which_alignment_it_wants(tmp_path: Path) -> None:
    """The first model follows ANTs, the other one the centroids, and finds the rigid part itself."""
    model(tmp_path, "row-sharp", (2.0, 0.0, 0.0), alignment="centroid", rigid_part=True)
    model(tmp_path, "row", (0.0, 0.0, 0.0), sharper={"detail": DETAIL, "model": "row-sharp"})
    settings = Settings(method="row", models=tmp_path, device="cpu")
    glands = {"mr_gland": mr_mask(), "trus_gland": trus_mask()}
    sharp, soft = (
        register(mr_image(), image, settings=settings, **glands)  # type: ignore[arg-type]
        for image in (speckled(), blurred(speckled()))
    )
    assert (sharp.rigid.method, soft.rigid.method) == ("network", "ants-meansquares")
    # The shift of 3 mm is rigid, so that it is in the alignment and not in the field.
    assert sharp.rigid_measures.values["dsc"] == pytest.approx(sharp.measures.values["dsc"], abs=0.01)
    assert sharp.measures.values["displacement_max_mm"] < 0.05
    centred = register(mr_image(), speckled(), settings=Settings(method="centroid", device="cpu"), **glands)  # type: ignore[arg-type]
    apart = np.subtract(
        sharp.rigid.transform.TransformPoint(CENTRE_MM), centred.rigid.transform.TransformPoint(CENTRE_MM)
    )
    assert np.linalg.norm(apart) == pytest.approx(3.0, abs=0.01)
    # An alignment that was given is kept.
    given = registered(speckled(), tmp_path, "row")
    assert given.rigid.method == "given"
    assert given.measures.values["displacement_max_mm"] == pytest.approx(3.0, abs=0.05)


@pytest.mark.slow
def test_an_evaluation_aligns_by_the_model_that_runs(tmp_path: Path) -> None:
    """Also where another method of the same case was aligned by ANTs before it."""
    write_dataset(tmp_path / "data", "muregpro", ("a",))
    models = tmp_path / "models"
    model(models, "row-sharp", (0.0, 0.0, 0.0), alignment="centroid")
    model(models, "row", (0.0, 0.0, 0.0), sharper={"detail": 0.0, "model": "row-sharp"})
    cases = find_cases(tmp_path / "data", "muregpro")
    settings = Settings(device="cpu", models=models)
    rows = {
        row.method: row
        for row in evaluate(
            cases, ["rigid", "centroid", "row", "row-sharp"], masks="reference", settings=settings
        )
    }
    assert [row.error for row in rows.values()] == [""] * 4
    # Without a displacement, the network's result is its alignment.
    for name in ("row", "row-sharp"):
        assert rows[name].tre_rms_mm == pytest.approx(rows["centroid"].tre_rms_mm, abs=0.02)
    assert abs(rows["rigid"].tre_rms_mm - rows["centroid"].tre_rms_mm) > 0.05


def test_the_sharp_model_may_be_chosen_by_its_own_name(tmp_path: Path) -> None:
    both(tmp_path)
    result = registered(blurred(speckled()), tmp_path, "row-sharp")
    assert result.deformation is not None
    assert (result.method, result.deformation.model) == ("row-sharp", "row-sharp")


def test_a_sharp_model_that_is_missing_is_named_before_anything_is_done(tmp_path: Path) -> None:
    model(tmp_path, "row", (0.0, 0.0, 0.0), sharper={"detail": DETAIL, "model": "nowhere"})
    stages: list[str] = []
    settings = Settings(method="row", models=tmp_path, device="cpu")
    with pytest.raises(InputError, match="needs the model nowhere"):
        register(mr_image(), speckled(), settings=settings, progress=lambda event: stages.append(event.stage))
    assert stages == []
    # A blurred volume has no need of it.
    assert registered(blurred(speckled()), tmp_path, "row").method == "row"


@pytest.mark.parametrize(
    "said", ["row-sharp", {"detail": 0.055}, {"detail": "much", "model": "row-sharp"}, 3]
)
def test_a_card_that_says_it_wrongly_is_refused(tmp_path: Path, said: object) -> None:
    first = model(tmp_path, "row", (0.0, 0.0, 0.0), sharper=said)
    with pytest.raises(InputError, match=r"card of row .* `sharper`"):
        model_for_detail(first, speckled(), tmp_path)


@pytest.mark.slow
def test_the_control_without_content_asks_the_network_of_the_images_with_it(tmp_path: Path) -> None:
    """Zeroed images have no detail, but those that they are compared with have."""
    write_dataset(tmp_path / "data", "muregpro", ("a",))
    models = tmp_path / "models"
    model(models, "row-sharp", (2.0, 0.0, 0.0))
    model(models, "row", (0.0, 0.0, 0.0), sharper={"detail": 0.0, "model": "row-sharp"}, alignment="centroid")
    settings = Settings(device="cpu", models=models)
    cases = find_cases(tmp_path / "data", "muregpro")
    rows = evaluate(cases, ["row", "row+zeroed"], masks="reference", settings=settings)
    assert [row.error for row in rows] == ["", ""]
    assert [row.displacement_max_mm for row in rows] == pytest.approx([3.0, 3.0], abs=0.05)
