"""Training losses against closed forms, scipy, MONAI and finite differences."""

import warnings

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from MRTRUSTraining.losses import (
    bending_energy,
    gaussian_smooth,
    gradient_l2,
    roi_mutual_information,
    soft_dice,
    two_class_dice_loss,
    weighted_dice_loss,
)


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
        gradient_l2,
        bending_energy,
    ],
    ids=["dice", "smooth", "weighted-dice", "information", "gradient", "bending"],
)
def test_derivatives_agree_with_finite_differences(loss: object) -> None:
    values = small(1, 3, 3, 4, 3)
    assert torch.autograd.gradcheck(loss, (values,), eps=1e-6, atol=1e-5)  # type: ignore[arg-type]
