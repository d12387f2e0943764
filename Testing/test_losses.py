"""Training losses against closed forms, scipy, MONAI and finite differences."""

import warnings

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from scipy.ndimage import gaussian_filter

from MRTRUSTraining.losses import (
    bending_energy,
    code_dice_loss,
    collapsed_classes,
    dice_cross_entropy_loss,
    gaussian_smooth,
    gradient_l2,
    multi_scale_dice_loss,
    roi_mutual_information,
    soft_dice,
    two_class_dice_loss,
    weighted_dice_loss,
    whole_volume_mutual_information,
)
from MRTRUSTraining.segmentation_training import SegmentationSample, SegmentationSettings, SegmentationTask


def boxes() -> tuple[torch.Tensor, torch.Tensor]:
    """Two channels: boxes of 8×8×8 that share half their voxels, and disjoint ones of 2×2×2."""
    a, b = torch.zeros(1, 2, 24, 16, 16), torch.zeros(1, 2, 24, 16, 16)
    a[:, 0, 4:12, 4:12, 4:12] = b[:, 0, 8:16, 4:12, 4:12] = 1
    a[:, 1, 2:4, 2:4, 2:4] = b[:, 1, 6:8, 2:4, 2:4] = 1
    return a, b


# --- Dice ----------------------------------------------------------------------------------------------


def test_soft_dice_of_known_overlaps() -> None:
    a, b = boxes()
    np.testing.assert_allclose(soft_dice(a, b).numpy(), [0.5, 0.0], atol=1e-5)
    np.testing.assert_allclose(soft_dice(a, a).numpy(), [1.0, 1.0], atol=1e-6)


def test_soft_dice_squares_the_denominator() -> None:
    # Half-sure everywhere inside: 2·½n / (¼n + n) = 0.8.
    _, b = boxes()
    np.testing.assert_allclose(soft_dice(b / 2, b).numpy(), [0.8, 0.8], atol=1e-5)


def test_soft_dice_is_joint_over_the_batch() -> None:
    # One case perfect with 512 voxels, one missed with 8: 2·512 / (512 + 520).
    predicted, target = torch.zeros(2, 1, 16, 16, 16), torch.zeros(2, 1, 16, 16, 16)
    predicted[0, :, :8, :8, :8] = target[0, :, :8, :8, :8] = 1
    target[1, :, :2, :2, :2] = 1
    assert float(soft_dice(predicted, target)) == pytest.approx(1024 / 1032, abs=1e-6)


def test_two_absent_structures_agree() -> None:
    assert float(soft_dice(torch.zeros(1, 1, 4, 4, 4), torch.zeros(1, 1, 4, 4, 4))) == 1.0


def test_two_class_loss_is_the_mean_of_background_and_gland() -> None:
    target = torch.zeros(1, 1, 10, 10, 10)
    target[:, :, :5, :5, :4] = 1
    sure = torch.cat([1 - target, target], dim=1) * 200 - 100
    assert float(two_class_dice_loss(sure, target)) == pytest.approx(0, abs=1e-6)
    assert float(two_class_dice_loss(-sure, target)) == pytest.approx(1, abs=1e-6)
    # Nothing found: gland 0, background 2·900 / (1000 + 900).
    nothing = torch.cat([torch.full_like(target, 100), torch.full_like(target, -100)], dim=1)
    assert float(two_class_dice_loss(nothing, target)) == pytest.approx(1 - (1800 / 1900) / 2, abs=1e-6)


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.5, 6.0])
def test_smoothing_is_that_of_scipy(sigma: float) -> None:
    volume = np.random.default_rng(0).normal(size=(14, 20, 17))
    expected = gaussian_filter(volume, sigma, mode="constant", cval=0.0, truncate=3.0)
    found = gaussian_smooth(torch.from_numpy(volume.astype(np.float32))[None, None], sigma)[0, 0].numpy()
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_smoothing_keeps_batch_and_channels_apart_and_zero_sigma_does_nothing() -> None:
    volume = torch.randn(2, 3, 6, 7, 8, generator=torch.Generator().manual_seed(0))
    together = gaussian_smooth(volume, 1.2)
    torch.testing.assert_close(together[1:, 2:], gaussian_smooth(volume[1:, 2:], 1.2))
    assert gaussian_smooth(volume, 0.0) is volume


def test_weighted_dice_is_equation_four() -> None:
    a, b = boxes()
    # 1 − (0.1 · 0.5 + 0.3 · 0.0) / 2
    loss = weighted_dice_loss(a, b, gland_weight=0.1, landmark_weight=0.3)
    assert float(loss) == pytest.approx(0.975, abs=1e-5)
    assert float(weighted_dice_loss(b, b, gland_weight=1.0, landmark_weight=1.0)) == pytest.approx(
        0, abs=1e-6
    )


def test_scales_of_the_dice_are_averaged() -> None:
    a, b = boxes()
    options = {"gland_weight": 0.2, "landmark_weight": 0.3}
    plain = weighted_dice_loss(a, b, **options)
    blurred = weighted_dice_loss(gaussian_smooth(a, 2.0), gaussian_smooth(b, 2.0), **options)
    both = weighted_dice_loss(a, b, scales_vox=(0.0, 2.0), **options)
    assert float(both) == pytest.approx(float(plain + blurred) / 2, abs=1e-6)


def test_only_a_smoothed_landmark_feels_its_distant_counterpart() -> None:
    def slope(scales: tuple[float, ...]) -> float:
        a, b = boxes()
        shifted = a.roll(1, dims=2)
        return float(
            weighted_dice_loss(a[:, 1:], b[:, 1:], gland_weight=1, landmark_weight=1, scales_vox=scales)
            - weighted_dice_loss(
                shifted[:, 1:], b[:, 1:], gland_weight=1, landmark_weight=1, scales_vox=scales
            )
        )

    assert slope((0.0,)) == 0
    assert slope((2.0,)) > 0.05


# --- Dice and cross-entropy ----------------------------------------------------------------------------


def test_dice_and_cross_entropy_of_a_network_that_knows_nothing() -> None:
    target = torch.zeros(1, 1, 10, 10, 10)
    target[:, :, :5, :5, :4] = 1
    # One half everywhere: Dice 2·½n / (¼·1000 + n) for each class of n voxels, cross-entropy log 2.
    dice = np.mean([n / (250 + n) for n in (100, 900)])
    found = dice_cross_entropy_loss(torch.zeros(1, 2, 10, 10, 10), target)
    assert float(found) == pytest.approx(1 - dice + np.log(2), abs=1e-6)
    sure = torch.cat([1 - target, target], dim=1) * 200 - 100
    assert float(dice_cross_entropy_loss(sure, target)) == pytest.approx(0, abs=1e-6)
    assert float(dice_cross_entropy_loss(-sure, target)) == pytest.approx(1 + 200, abs=1e-4)


@pytest.mark.slow
def test_dice_and_cross_entropy_are_those_of_monai() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai.losses import DiceCELoss

    loss = DiceCELoss(softmax=True, squared_pred=True, batch=True, smooth_nr=1e-5, smooth_dr=1e-5)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 6, 7, 8, generator=generator)
    target = (torch.rand(2, 1, 6, 7, 8, generator=generator) > 0.7).float()
    expected = loss(logits, torch.cat([1 - target, target], dim=1))
    torch.testing.assert_close(dice_cross_entropy_loss(logits, target), expected)


def test_a_segmenter_is_trained_by_the_sum_and_told_both_parts() -> None:
    volume = sitk.GetImageFromArray(np.random.default_rng(0).uniform(size=(16, 16, 16)).astype(np.float32))
    gland = sitk.Cast(volume > 0.6, sitk.sitkUInt8)
    sample = SegmentationSample("s", "real", volume, gland, gland)
    task = SegmentationTask(
        SegmentationSettings(
            "MR", options={"widths": (2,) * 5}, training_vox=(16, 16, 16), loss="dice+cross-entropy"
        ),
        [[sample]],
        [sample],
    )
    image, target = task._draw(np.random.default_rng(3))
    logits = torch.cat([image, 2 - 3 * image], dim=1)
    found, parts = task.loss(
        lambda shown: torch.cat([shown, 2 - 3 * shown], dim=1), [np.random.default_rng(3)]
    )
    entropy = torch.nn.functional.cross_entropy(logits, target.argmax(1))
    assert parts["dice"] == pytest.approx(float(two_class_dice_loss(logits, target[:, 1:])), abs=1e-6)
    assert parts["cross_entropy"] == pytest.approx(float(entropy), abs=1e-6)
    assert float(found) == pytest.approx(parts["dice"] + parts["cross_entropy"], abs=1e-6)


# --- multi-scale Dice ----------------------------------------------------------------------------------


def test_label_loss_has_the_plain_denominator() -> None:
    a, b = boxes()
    # Shares half: 0.5; shares nothing: 0.
    assert float(multi_scale_dice_loss(a, b, scales_vox=(0.0,))) == pytest.approx(0.75, abs=1e-5)
    # Half-sure everywhere inside: 2·½n / (½n + n) = 2/3.
    assert float(multi_scale_dice_loss(b / 2, b, scales_vox=(0.0,))) == pytest.approx(1 / 3, abs=1e-5)
    assert float(multi_scale_dice_loss(a * 0, b * 0)) == pytest.approx(0, abs=1e-6)


def test_label_loss_is_taken_per_case() -> None:
    # One case perfect with 512 voxels, one missed with 8: the mean of 0 and 1.
    predicted, target = torch.zeros(2, 1, 16, 16, 16), torch.zeros(2, 1, 16, 16, 16)
    predicted[0, :, :8, :8, :8] = target[0, :, :8, :8, :8] = 1
    target[1, :, :2, :2, :2] = 1
    assert float(multi_scale_dice_loss(predicted, target, scales_vox=(0.0,))) == pytest.approx(0.5, abs=1e-5)


def test_label_loss_of_two_smoothed_points_is_in_closed_form() -> None:
    """Two Gaussians σ at distance d overlap by exp(−d² / 4σ²) / (4πσ²)^(3/2), and each sums to one."""
    a, b = torch.zeros(1, 1, 33, 33, 33), torch.zeros(1, 1, 33, 33, 33)
    a[..., 15, 16, 16], b[..., 18, 16, 16] = 1, 1
    for sigma in (2.0, 3.0):
        expected = 1 - np.exp(-9 / (4 * sigma**2)) / (4 * np.pi * sigma**2) ** 1.5
        found = float(multi_scale_dice_loss(a.double(), b.double(), scales_vox=(sigma,), smooth=0.0))
        # Gaussians are cut at three standard deviations.
        assert 1 - found == pytest.approx(1 - expected, rel=0.03)


def test_label_loss_is_the_mean_over_the_papers_six_scales() -> None:
    a, b = boxes()
    alone = [float(multi_scale_dice_loss(a, b, scales_vox=(s,))) for s in (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)]
    assert float(multi_scale_dice_loss(a, b)) == pytest.approx(np.mean(alone), abs=1e-6)


def test_label_loss_draws_a_distant_landmark_near() -> None:
    a, b = (labels[:, 1:] for labels in boxes())
    nearer = a.roll(1, dims=2)

    def gain(sigma: float) -> float:
        far, near = (float(multi_scale_dice_loss(x, b, scales_vox=(sigma,))) for x in (a, nearer))
        return far - near

    assert gain(0.0) == 0
    assert gain(2.0) > 1e-3


# --- Dice of the official code -------------------------------------------------------------------------


def test_classes_are_those_of_a_map_that_later_labels_overwrite() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.uniform(size=(2, 4, 5, 6, 7)) < 0.4).astype(np.float32)
    expected = np.zeros((2, 5, 6, 7), int)
    for channel in range(4):
        expected[labels[:, channel] > 0] = channel + 1
    found = collapsed_classes(torch.from_numpy(labels)).numpy()
    np.testing.assert_array_equal(found, expected[:, None] == np.arange(5)[None, :, None, None, None])


def test_classes_of_soft_labels_add_up_to_one() -> None:
    labels = torch.rand(1, 4, 5, 6, 7, generator=torch.Generator().manual_seed(0))
    classes = collapsed_classes(labels)
    assert classes.min() >= 0
    torch.testing.assert_close(classes.sum(1), torch.ones(1, 5, 6, 7))
    torch.testing.assert_close(classes[:, -1], labels[:, -1])


@pytest.mark.parametrize(("progress", "gland_weight"), [(0.0, 0.1), (0.5, 0.0535887), (1.0, 0.0)])
def test_code_dice_fades_background_and_gland(progress: float, gland_weight: float) -> None:
    a, b = boxes()
    a, b = collapsed_classes(a), collapsed_classes(b)
    # Volume 6144. The landmarks (8) miss each other; that of b lies outside the gland, as that of a does.
    background = 1 - 2 * (6144 - 512 - 256 - 16) / (2 * (6144 - 520))
    expected = (gland_weight * (background + 0.5) + 0.3) / 6
    assert float(code_dice_loss(a, b, progress=progress)) == pytest.approx(expected, abs=1e-6)


def test_code_dice_charges_nothing_for_a_class_that_neither_has() -> None:
    a, b = boxes()
    a, b = collapsed_classes(a), collapsed_classes(b)
    absent = torch.zeros_like(a[:, :1])
    with_absent = [torch.cat([x, absent], dim=1) for x in (a, b)]
    plain = float(code_dice_loss(a, b, progress=0.3))
    assert float(code_dice_loss(*with_absent, progress=0.3)) == pytest.approx(plain, abs=1e-6)


# --- mutual information --------------------------------------------------------------------------------


def volume(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, np.float64)).reshape(1, 1, -1, 1, 1)


def information(a: np.ndarray, b: np.ndarray, bins: int = 32) -> float:
    everywhere = torch.ones(1, 1, len(a), 1, 1)
    return float(roi_mutual_information(volume(a), volume(b), everywhere, bins=bins))


def parzen_information(a: np.ndarray, b: np.ndarray, bins: int) -> float:
    """The definition, written out: Σ p log(p / (p_a p_b)) of Gaussian memberships one bin wide."""
    centres = np.arange(bins) / (bins - 1)
    joint = np.zeros((bins, bins))
    for x, y in zip(a, b, strict=True):
        wx = np.exp(-0.5 * ((x - centres) * (bins - 1)) ** 2)
        wy = np.exp(-0.5 * ((y - centres) * (bins - 1)) ** 2)
        joint += np.outer(wx / wx.sum(), wy / wy.sum()) / len(a)
    product = np.outer(joint.sum(1), joint.sum(0))
    filled = joint > 0
    return float(np.sum(joint[filled] * np.log(joint[filled] / product[filled])))


def signals(noise: float, count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    a = rng.uniform(0.2, 0.8, count)
    return a, np.clip(1 - a + rng.normal(0, noise, count), 0, 1)


@pytest.mark.parametrize("bins", [8, 32])
def test_information_is_its_definition(bins: int) -> None:
    a, b = signals(0.1, count=500)
    # The guards against log(0) cost up to bins² · 1e-6 · |log|.
    assert information(a, b, bins) == pytest.approx(parzen_information(a, b, bins), abs=2e-3)


def test_information_of_two_distant_values_is_one_bit() -> None:
    # Four bins apart and more, the memberships of 0.1 and 0.9 do not touch: a fair coin, log 2.
    a = np.tile([0.1, 0.9], 500)
    assert information(a, 1 - a) == pytest.approx(np.log(2), abs=2e-3)
    assert information(a, np.repeat([0.1, 0.9], 500)) == pytest.approx(0, abs=2e-3)


def test_independent_signals_share_nothing() -> None:
    rng = np.random.default_rng(1)
    assert abs(information(rng.uniform(size=20000), rng.uniform(size=20000))) < 0.03


def test_information_falls_with_noise_whatever_the_contrast() -> None:
    values = [information(*signals(noise)) for noise in (0.0, 0.02, 0.05, 0.1, 0.3)]
    assert np.all(np.diff(values) < -0.03), values
    a, inverted = signals(0.0)
    assert information(a, inverted) == pytest.approx(information(a, a), abs=0.05)


def test_information_is_that_of_monai_in_its_convention() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai.losses import GlobalMutualInformationLoss

    # MONAI counts the width of a window in bins, and returns the negative.
    loss = GlobalMutualInformationLoss(
        kernel_type="gaussian", num_bins=32, sigma_ratio=1.0, smooth_nr=0.0, smooth_dr=1e-6
    )
    a, b = signals(0.08)
    expected = -float(loss(volume(a), volume(b)))
    assert information(a, b) == pytest.approx(expected, abs=1e-6)
    assert expected > 0.3


def test_voxels_outside_the_region_change_nothing() -> None:
    rng = np.random.default_rng(2)
    a, b = signals(0.1, count=600)
    roi = torch.zeros(1, 1, 600, 1, 1)
    roi[:, :, 100:400] = 1
    inside = roi_mutual_information(volume(a), volume(b), roi)
    changed_a, changed_b = a.copy(), b.copy()
    for array in (changed_a, changed_b):
        array[:100], array[400:] = rng.uniform(size=100), 0
    torch.testing.assert_close(roi_mutual_information(volume(changed_a), volume(changed_b), roi), inside)
    assert float(inside) == pytest.approx(information(a[100:400], b[100:400]), abs=1e-9)


def test_no_gradient_outside_the_region() -> None:
    a, b = signals(0.1, count=100)
    moving = volume(a).requires_grad_()
    roi = torch.zeros(1, 1, 100, 1, 1)
    roi[:, :, :50] = 1
    roi_mutual_information(moving, volume(b), roi).backward()
    assert moving.grad is not None
    assert torch.all(moving.grad[:, :, 50:] == 0)
    assert torch.any(moving.grad[:, :, :50] != 0)


def test_whole_volume_information_counts_the_zeros() -> None:
    a, b = signals(0.1, count=500)
    inside, shifted = np.zeros(500), np.zeros(500)
    inside[:100], shifted[50:150] = 1, 1
    found = whole_volume_mutual_information(volume(a), volume(b), volume(inside), volume(shifted))
    expected = parzen_information(a * inside, b * shifted, 32)
    # The guard against log(0) costs more where one bin holds most.
    assert float(found) == pytest.approx(expected, abs=4e-3)
    # Regions that agree share more, whatever is in them: the information of a voxel being inside, and more.
    noise = np.random.default_rng(5).uniform(0.3, 0.7, 500)
    unrelated = whole_volume_mutual_information(volume(a), volume(noise), volume(inside), volume(inside))
    entropy = -(0.2 * np.log(0.2) + 0.8 * np.log(0.8))
    assert float(unrelated) > 0.95 * entropy


def test_whole_volume_information_of_whole_regions_is_that_of_the_region() -> None:
    a, b = signals(0.1, count=300)
    ones = torch.ones(1, 1, 300, 1, 1)
    found = whole_volume_mutual_information(volume(a), volume(b), ones, ones, bins=16)
    assert float(found) == pytest.approx(information(a, b, 16), abs=1e-9)


# --- smoothness ----------------------------------------------------------------------------------------


def polynomial_field(linear: np.ndarray, quadratic: np.ndarray, size: int = 9) -> torch.Tensor:
    """u_c(x) = Σ_a L[c, a] x_a + Σ_ab Q[c, a, b] x_a x_b."""
    points = np.indices((size,) * 3).astype(np.float64)
    field = np.einsum("ca,akji->ckji", linear, points)
    return torch.from_numpy(field + np.einsum("cab,akji,bkji->ckji", quadratic, points, points))[None]


LINEAR = np.array([[0.1, -0.2, 0.3], [0.0, 0.5, -0.1], [0.4, 0.2, -0.3]])


def test_gradient_of_a_linear_field() -> None:
    # Each of the nine differences is constant: their mean square.
    found = gradient_l2(polynomial_field(LINEAR, np.zeros((3, 3, 3))))
    assert float(found) == pytest.approx(np.mean(LINEAR**2), abs=1e-12)


def test_gradient_of_a_translation_is_zero() -> None:
    assert float(gradient_l2(torch.full((1, 3, 5, 6, 7), 4.2))) == 0


def test_bending_energy_of_an_affine_map_is_zero() -> None:
    assert float(bending_energy(polynomial_field(LINEAR, np.zeros((3, 3, 3))) + 3)) < 1e-20


def test_bending_energy_of_a_quadratic_field() -> None:
    quadratic = np.random.default_rng(0).normal(size=(3, 3, 3)) * 0.1
    quadratic = (quadratic + quadratic.transpose(0, 2, 1)) / 2
    # The second derivatives are 2Q; the sum over both orders of a and b, the mean over components.
    expected = np.sum((2 * quadratic) ** 2) / 3
    assert float(bending_energy(polynomial_field(LINEAR, quadratic))) == pytest.approx(expected, rel=1e-9)


def test_bending_energy_is_of_central_differences_of_central_differences() -> None:
    # Of x⁴ they give 12x² + 8; second differences would give 12x² + 2.
    x = torch.arange(9, dtype=torch.float64).view(1, 1, 9, 1, 1).expand(1, 1, 9, 7, 6)
    expected = np.mean((12 * np.arange(2, 7) ** 2 + 8.0) ** 2)
    assert float(bending_energy(x**4)) == pytest.approx(expected, rel=1e-12)


def test_bending_energy_is_nearly_that_of_monai_for_smooth_fields() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai.losses import BendingEnergyLoss

        noise = torch.randn(2, 3, 24, 28, 26, generator=torch.Generator().manual_seed(0))
        smooth = gaussian_smooth(noise, 5.0)
        quadratic = polynomial_field(LINEAR, np.random.default_rng(3).normal(size=(3, 3, 3)))
        # MONAI takes compact second differences, on one voxel more at every side.
        expected = float(BendingEnergyLoss()(smooth[..., 1:-1, 1:-1, 1:-1]))
        expected_quadratic = float(BendingEnergyLoss()(quadratic))
    assert float(bending_energy(smooth)) == pytest.approx(expected, rel=0.1)
    assert float(bending_energy(quadratic)) == pytest.approx(expected_quadratic, rel=1e-9)


# --- derivatives ---------------------------------------------------------------------------------------


def small(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return (torch.rand(shape, generator=generator, dtype=torch.float64) * 0.8 + 0.1).requires_grad_()


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: soft_dice(x, (x.detach() > 0.5).double()),
        lambda x: gaussian_smooth(x, 1.0),
        lambda x: weighted_dice_loss(
            x, (x.detach() > 0.5).double(), gland_weight=0.1, landmark_weight=0.3, scales_vox=(0.0, 1.0)
        ),
        lambda x: roi_mutual_information(x[:, :1], x[:, 1:2], (x[:, 2:] > 0.4).double(), bins=6),
        lambda x: whole_volume_mutual_information(x[:, :1], x[:, 1:2], x[:, 2:], x[:, 1:2] > 0.4, bins=6),
        lambda x: multi_scale_dice_loss(x, (x.detach() > 0.5).double(), scales_vox=(0.0, 1.0)),
        lambda x: code_dice_loss(collapsed_classes(x), collapsed_classes(x.detach().round()), progress=0.4),
        gradient_l2,
        lambda x: bending_energy(torch.nn.functional.pad(x, (1, 1, 1, 1, 1, 1))),
    ],
    ids=[
        "dice",
        "smooth",
        "weighted-dice",
        "information",
        "whole-volume-information",
        "multi-scale-dice",
        "code-dice",
        "gradient",
        "bending",
    ],
)
def test_derivatives_agree_with_finite_differences(loss: object) -> None:
    values = small(1, 3, 3, 4, 3)
    assert torch.autograd.gradcheck(loss, (values,), eps=1e-6, atol=1e-5)  # type: ignore[arg-type]
