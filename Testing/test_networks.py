"""The networks, the warp and the integration of velocity fields."""

import warnings

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from scipy.ndimage import map_coordinates

from MRTRUSTraining.losses import gaussian_smooth
from MRTRUSTraining.networks.cmsa import CMSANet, CrossModalSpatialAttention, EncoderLevel, MirrorAveraged
from MRTRUSTraining.networks.vnet import GlandProbability, VNet
from MRTRUSTraining.networks.warp import identity_grid, integrate, integrate_at_half_resolution, warp

SMALL = (16, 16, 32)


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def pair(size: tuple[int, int, int] = SMALL, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 1, *size, generator=generator), torch.rand(1, 1, *size, generator=generator)


def with_large_flow(network: CMSANet) -> CMSANet:
    """The network with a head that gives displacements of some voxels, as a trained one has."""
    torch.manual_seed(1)
    torch.nn.init.normal_(network.flow.weight, std=0.3)
    return network.eval()


# --- V-Net ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("widths", "expected"), [(VNet.paper_widths, 9_443_266), ((8, 16, 32, 64, 96), 1_748_130)]
)
def test_number_of_parameters_of_the_official_and_the_bundled_vnet(
    widths: tuple[int, ...], expected: int
) -> None:
    assert parameters(VNet(widths)) == expected


def test_vnet_gives_two_logits_per_voxel() -> None:
    network = VNet((2, 4, 6, 8, 10), dropout=0.5).eval()
    assert network(torch.rand(2, 1, 16, 16, 48)).shape == (2, 2, 16, 16, 48)


def test_vnet_drops_features_only_in_training() -> None:
    network, image = VNet((2, 4, 6, 8, 10), dropout=0.5), torch.rand(1, 1, 16, 16, 32)
    network.train()
    outputs = [network(image) for _ in range(12)]
    assert any(not torch.equal(outputs[0], other) for other in outputs[1:])
    network.eval()
    assert torch.equal(network(image), network(image))


def test_vnet_normalises_contrast_and_brightness_away() -> None:
    """Instance norm after the first convolution: only the residual path sees the scale of the input."""
    # Random weights may leave a channel so little variance that the norm's epsilon shows.
    torch.manual_seed(0)
    network = VNet((4, 4, 6, 8, 10)).eval()
    image = torch.rand(1, 1, 16, 16, 16)
    first = network.encode1.stack(image)
    assert torch.allclose(network.encode1.stack(3 * image), first, atol=1e-3)
    assert torch.allclose(first.mean((2, 3, 4)), torch.zeros(1, 4), atol=1e-5)
    assert torch.allclose(first.var((2, 3, 4), unbiased=False), torch.ones(1, 4), atol=1e-2)


def test_probability_is_the_softmax_of_the_gland() -> None:
    network = VNet((2, 4, 6, 8, 10)).eval()
    image = torch.rand(1, 1, 16, 16, 32)
    with torch.inference_mode():
        logits = network(image).double().numpy()
        found = GlandProbability(network)(image)
    assert found.shape == (1, 1, 16, 16, 32)
    expected = 1 / (1 + np.exp(logits[:, :1] - logits[:, 1:]))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


# --- cross-modal spatial attention ---------------------------------------------------------------------


@pytest.mark.parametrize(("attention", "expected"), [(True, 412_411), (False, 405_411)])
def test_registration_network_has_the_papers_number_of_parameters(attention: bool, expected: int) -> None:
    assert parameters(CMSANet(attention=attention)) == expected


def test_instance_norm_adds_two_parameters_a_channel_and_nothing_to_the_published_network() -> None:
    normalised = CMSANet(normalisation="instance")
    channels = sum(m.num_features for m in normalised.modules() if isinstance(m, torch.nn.InstanceNorm3d))
    assert parameters(normalised) == 412_411 + 2 * channels == 413_531
    assert not [m for m in CMSANet().modules() if isinstance(m, torch.nn.InstanceNorm3d)]
    with pytest.raises(ValueError, match="normalisation must be none or instance, not 'batch'"):
        CMSANet(normalisation="batch")


def test_with_instance_norm_the_contrast_of_the_images_does_not_matter() -> None:
    torch.manual_seed(0)
    network = CMSANet(normalisation="instance").eval()
    torch.nn.init.normal_(network.flow.weight, std=0.1)
    moving, fixed = torch.rand(1, 1, 32, 32, 32), torch.rand(1, 1, 32, 32, 32)
    with torch.inference_mode():
        field, of_faint = network(moving, fixed), network(moving, 0.5 * fixed)
        assert float(field.abs().max()) > 0.1
        # But for the border, where the zeros outside the volume keep their value.
        inner = (slice(None), slice(None), *[slice(8, 24)] * 3)
        assert float((field - of_faint)[inner].abs().max()) < 0.2 * float(field[inner].abs().max())


def test_attention_is_equation_one_by_hand() -> None:
    torch.manual_seed(0)
    layer = CrossModalSpatialAttention(6)
    own, other = torch.randn(2, 6, 3, 4, 5), torch.randn(2, 6, 3, 4, 5)

    def apply(convolution: torch.nn.Conv3d, x: np.ndarray) -> np.ndarray:
        weight = convolution.weight.detach().numpy()[:, :, 0, 0, 0]
        bias = convolution.bias.detach().numpy()
        return np.einsum("oc,bckji->bokji", weight, x) + bias[None, :, None, None, None]

    hidden = np.maximum(apply(layer.from_other, other.numpy()) + apply(layer.from_own, own.numpy()), 0)
    expected = own.numpy() / (1 + np.exp(-apply(layer.to_map, hidden)))
    np.testing.assert_allclose(layer(own, other).detach().numpy(), expected, atol=1e-5)
    assert layer.from_other.out_channels == 3, "the hidden width is half the input's"


def test_both_streams_read_the_other_as_it_was_before_attention() -> None:
    torch.manual_seed(0)
    level = EncoderLevel(1, 4, attention=True)
    moving, fixed = pair((4, 4, 4))
    m, f = level.moving_block(moving), level.fixed_block(fixed)
    expected = level.moving_attention(m, f), level.fixed_attention(f, m)
    found = level(moving, fixed)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert torch.equal(found[2], level.fusion(torch.cat(expected, dim=1)))


def test_an_untrained_network_hardly_moves_anything() -> None:
    torch.manual_seed(0)
    with torch.inference_mode():
        field = CMSANet().eval()(*pair())
    assert field.shape == (1, 3, *SMALL)
    assert 0 < field.abs().max() < 1e-3


def test_without_integration_the_field_is_the_heads_output() -> None:
    network = with_large_flow(CMSANet(integration_steps=0))
    with torch.inference_mode():
        assert torch.equal(network(*pair()), network.velocity(*pair()))


def test_with_integration_the_field_is_the_integrated_velocity() -> None:
    network = with_large_flow(CMSANet(integration_steps=7))
    with torch.inference_mode():
        velocity, field = network.velocity(*pair()), network(*pair())
    assert torch.equal(field, integrate_at_half_resolution(velocity, 7))
    assert (field - velocity).abs().max() > 0.01


def test_a_decoder_that_ends_at_half_resolution_has_the_same_layers() -> None:
    torch.manual_seed(0)
    whole, half = with_large_flow(CMSANet()), with_large_flow(CMSANet(half_resolution=True))
    half.load_state_dict(whole.state_dict())
    moving, fixed = pair()
    sizes: list[torch.Size] = []
    half.final.register_forward_hook(lambda _, inputs, __: sizes.append(inputs[0].shape[2:]))
    with torch.inference_mode():
        velocity = half.velocity(moving, fixed)
    assert velocity.shape == (1, 3, *moving.shape[2:])
    assert [2 * n for n in sizes[0]] == list(moving.shape[2:])
    with pytest.raises(ValueError, match="half_resolution must be"):
        CMSANet(half_resolution="yes")  # type: ignore[arg-type]


def test_the_two_inputs_are_not_interchangeable() -> None:
    network = with_large_flow(CMSANet())
    moving, fixed = pair()
    with torch.inference_mode():
        assert (network(moving, fixed) - network(fixed, moving)).abs().max() > 1e-3


@pytest.mark.slow
def test_mirror_averaged_registration_mirrors_with_its_input() -> None:
    """The mirrored pair gives the mirrored field, whose left–right component has the other sign."""
    plain = with_large_flow(CMSANet())
    network = MirrorAveraged(plain).eval()
    moving, fixed = pair()
    with torch.inference_mode():
        field = network(moving, fixed)
        expected = network(moving.flip(-1), fixed.flip(-1)).flip(-1)
        expected[:, 2] *= -1
        torch.testing.assert_close(field, expected, atol=1e-5, rtol=0)
        assert (field - plain(moving, fixed)).abs().max() > 1e-3


def test_mirror_averaged_probability_mirrors_with_its_input() -> None:
    network = GlandProbability(VNet((4, 8, 8, 8, 8)), mirror=True).eval()
    image = pair()[0]
    with torch.inference_mode():
        found = network(image)
        torch.testing.assert_close(network(image.flip(-1)).flip(-1), found, atol=1e-5, rtol=0)
        assert (found - GlandProbability(network.network)(image)).abs().max() > 1e-3


# --- warp ----------------------------------------------------------------------------------------------


def random_case(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(9, 11, 14)).astype(np.float32), rng.normal(0, 2, (3, 9, 11, 14)).astype(
        np.float32
    )


def torch_warp(volume: np.ndarray, displacement: np.ndarray, mode: str = "bilinear") -> np.ndarray:
    return warp(torch.from_numpy(volume)[None, None], torch.from_numpy(displacement)[None], mode)[
        0, 0
    ].numpy()


def test_identity_grid_counts_voxels_along_the_array_axes() -> None:
    grid = identity_grid((2, 3, 4), torch.device("cpu"))[0].numpy()
    np.testing.assert_array_equal(grid, np.indices((2, 3, 4)))


def test_warp_by_whole_voxels_is_a_shift_with_zeros_outside() -> None:
    volume, _ = random_case()
    shift = np.zeros((3, 9, 11, 14), np.float32)
    shift[0], shift[2] = 2, -3
    expected = np.zeros_like(volume)
    expected[:-2, :, 3:] = volume[2:, :, :-3]
    np.testing.assert_allclose(torch_warp(volume, shift), expected, atol=1e-5)


def test_warp_agrees_with_scipy() -> None:
    volume, displacement = random_case()
    places = np.indices(volume.shape) + displacement
    # "grid-constant" is the same rule as zero padding: the volume goes on as zeros, interpolated linearly.
    expected = map_coordinates(volume, places, order=1, mode="grid-constant", cval=0)
    np.testing.assert_allclose(torch_warp(volume, displacement), expected, atol=2e-5)


def test_nearest_warp_agrees_with_scipy() -> None:
    volume, displacement = random_case(1)
    expected = map_coordinates(volume, np.indices(volume.shape) + displacement, order=0, mode="grid-constant")
    assert np.mean(torch_warp(volume, displacement, "nearest") != expected) < 1e-3


@pytest.mark.slow
def test_warp_agrees_with_monai() -> None:
    from monai.networks.blocks import Warp

    volume, displacement = random_case(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        monai_warp = Warp(mode="bilinear", padding_mode="zeros")
    expected = monai_warp(torch.from_numpy(volume)[None, None], torch.from_numpy(displacement)[None])
    np.testing.assert_allclose(torch_warp(volume, displacement), expected[0, 0].numpy(), atol=2e-5)


# --- integration ---------------------------------------------------------------------------------------


def linear_velocity(matrix: np.ndarray, size: int) -> torch.Tensor:
    """v(x) = A (x − c) in voxels, c the middle."""
    points = np.indices((size,) * 3).astype(np.float64) - (size - 1) / 2
    return torch.from_numpy(np.einsum("ab,bkji->akji", matrix, points)[None].astype(np.float32))


ROTATION = np.array([[0, -0.5, 0.1], [0.5, 0, -0.2], [-0.1, 0.2, 0]])
EXPANSION = np.diag([0.25, -0.3, 0.1])
SHEAR = np.array([[0, 0.3, 0], [0, 0, 0.2], [0, 0, 0.1]])


@pytest.mark.parametrize("steps", [0, 1, 7])
@pytest.mark.parametrize("integral", [integrate, integrate_at_half_resolution])
def test_constant_velocity_gives_the_same_displacement(integral: object, steps: int) -> None:
    velocity = torch.tensor([1.5, -2.0, 0.7]).view(1, 3, 1, 1, 1).expand(1, 3, 16, 16, 24).contiguous()
    assert torch.allclose(integral(velocity, steps), velocity, atol=1e-5)  # type: ignore[operator]


def test_no_squarings_return_the_field_itself() -> None:
    velocity = torch.randn(1, 3, 8, 8, 8)
    assert torch.equal(integrate(velocity, 0), velocity)


@pytest.mark.parametrize("matrix", [ROTATION, EXPANSION, SHEAR], ids=["rotation", "expansion", "shear"])
def test_linear_velocity_integrates_to_the_matrix_exponential(matrix: np.ndarray) -> None:
    size, inner = 49, slice(14, 35)
    found = integrate(linear_velocity(matrix, size), 10)[0, :, inner, inner, inner].numpy()
    expected = linear_velocity(expm(matrix) - np.eye(3), size)[0, :, inner, inner, inner].numpy()
    # Ten squarings: the first-order start leaves an error of |A|²|x| / 2¹¹.
    np.testing.assert_allclose(found, expected, atol=5e-3)
    plain = linear_velocity(matrix, size)[0, :, inner, inner, inner].numpy()
    assert np.abs(plain - expected).max() > 0.3, "plain velocity must be wrong for this test to tell"


def test_every_squaring_halves_the_error() -> None:
    expected = linear_velocity(expm(ROTATION) - np.eye(3), 33)[0, :, 12:21, 12:21, 12:21].numpy()
    errors = [
        np.abs(
            integrate(linear_velocity(ROTATION, 33), n)[0, :, 12:21, 12:21, 12:21].numpy() - expected
        ).max()
        for n in (5, 6, 7)
    ]
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 2, rtol=0.1)


def smooth_velocity() -> torch.Tensor:
    """Random velocities of a few voxels that fade out towards the border."""
    noise = torch.randn(1, 3, 40, 40, 40, generator=torch.Generator().manual_seed(4))
    noise[:, :, [0, 1, 2, 3, -1, -2, -3, -4]] = 0
    smooth = gaussian_smooth(noise, 5.0)
    return smooth * (2.5 / smooth.abs().max())


def test_negated_velocity_integrates_to_the_inverse() -> None:
    velocity = smooth_velocity()
    there, back = integrate(velocity, 7), integrate(-velocity, 7)
    gap = there + warp(back, there)
    assert there.abs().max() > 1.5
    assert gap[..., 2:-2, 2:-2, 2:-2].abs().max() < 0.05


def test_integrated_field_folds_nowhere_where_the_plain_one_does() -> None:
    velocity = 5 * smooth_velocity()

    def least_determinant(field: torch.Tensor) -> float:
        steps = [torch.gradient(field[0].double(), dim=axis)[0] for axis in (1, 2, 3)]
        jacobian = torch.stack(steps, dim=1).permute(2, 3, 4, 0, 1) + torch.eye(3)
        return float(torch.linalg.det(jacobian)[1:-1, 1:-1, 1:-1].min())

    assert least_determinant(velocity) < 0
    assert least_determinant(integrate(velocity, 7)) > 0


# --- export formats ------------------------------------------------------------------------------------


def networks() -> list[tuple[torch.nn.Module, tuple[torch.Tensor, ...]]]:
    torch.manual_seed(0)
    vnet = GlandProbability(VNet((4, 8, 8, 8, 8))).eval()
    return [
        (vnet, pair()[:1]),
        (with_large_flow(CMSANet(attention=False, integration_steps=0)), pair()),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1], ids=["gland-probability", "no-attention"])
def test_torchscript_computes_what_eager_does(index: int) -> None:
    network, inputs = networks()[index]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.script(network)
    with torch.inference_mode():
        eager = network(*inputs)
        assert eager.std() > 1e-3, "a constant output would hide differences"
        torch.testing.assert_close(script(*inputs), eager, atol=1e-5, rtol=0)
