"""The comparators' registration networks against MONAI where definitions agree, and by hand."""

import copy
import itertools
import warnings
from typing import Any

import pytest
import torch
from torch.nn import functional

from MRTRUSTraining.networks.cmsa import CMSANet
from MRTRUSTraining.networks.localnet import DecoderLevel, EncoderLevel, LocalNet
from MRTRUSTraining.networks.rern import RERN, DecoderBlock, EncoderBlock
from MRTRUSTraining.networks.segmentation_based import SegmentationBasedNet
from MRTRUSTraining.networks.voxelmorph import VoxelMorph
from MRTRUSTraining.networks.warp import integrate_at_half_resolution


def volumes(count: int, size: tuple[int, int, int] = (16, 16, 32), channels: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(1, channels, *size, generator=generator) for _ in range(count)]


def randomised(network: torch.nn.Module) -> torch.nn.Module:
    """All parameters of a size that matters, batch norms with statistics, ready for evaluation."""
    generator = torch.Generator().manual_seed(1)
    for key, value in network.state_dict().items():
        if value.dtype.is_floating_point:
            scale = 1.0 if value.ndim == 1 else (2 / value[0].numel()) ** 0.5
            drawn = torch.randn(value.shape, generator=generator) * scale
            value.copy_(drawn.abs() + 0.5 if key.endswith("running_var") else drawn)
    return network.eval()


def copy_in_order(source: torch.nn.Module, target: torch.nn.Module) -> None:
    """Parameters and statistics, in the order in which the modules hold them."""
    pairs = list(zip(source.state_dict().values(), target.state_dict().values(), strict=True))
    for from_value, to_value in pairs:
        assert from_value.shape == to_value.shape
        to_value.copy_(from_value)


def monai(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai.networks.blocks import localnet_block
        from monai.networks.nets import voxelmorph
    return getattr(voxelmorph, name, None) or getattr(localnet_block, name)


# --- first weights -------------------------------------------------------------------------------------


def seen_of_two_pairs(network: Any, inputs: int) -> float:
    """How far the deepest features of two different pairs are apart (standard deviation)."""
    features: list[torch.Tensor] = []
    network.decoder[0].register_forward_pre_hook(lambda module, given: features.append(given[0]))
    with torch.inference_mode():
        for pair in (volumes(inputs), volumes(2 * inputs)[inputs:]):
            network(*pair)
    return float((features[0] - features[1]).std())


@pytest.mark.parametrize(("kind", "inputs"), [(CMSANet, 2), (VoxelMorph, 2), (SegmentationBasedNet, 4)])
def test_kept_signal_lets_a_network_see_its_input_from_the_start(kind: Any, inputs: int) -> None:
    torch.manual_seed(0)
    kept, default = (seen_of_two_pairs(kind(initialisation=how), inputs) for how in ("kept", "default"))
    assert kept > 0.02
    assert kept > 20 * default
    with pytest.raises(ValueError, match="initialisation"):
        kind(initialisation="random")


def test_kept_signal_leaves_the_field_at_its_small_start() -> None:
    torch.manual_seed(0)
    field = CMSANet(initialisation="kept")(*volumes(2))
    assert 0 < float(field.detach().abs().max()) < 0.01


# --- VoxelMorph ----------------------------------------------------------------------------------------


def with_skips_first(network: VoxelMorph) -> VoxelMorph:
    """A copy whose weights expect the skip before the enlarged features, as MONAI concatenates them."""
    copied = copy.deepcopy(network)
    for block in [*list(copied.decoder)[1:], copied.final[0]]:
        weight = block.convolution.weight.data
        weight.copy_(torch.cat([weight[:, 32:], weight[:, :32]], dim=1))
    return copied


@pytest.mark.slow
def test_voxelmorph_is_that_of_monai() -> None:
    ours = randomised(VoxelMorph(integration_steps=0))
    theirs = monai("VoxelMorphUNet")(
        spatial_dims=3,
        in_channels=2,
        unet_out_channels=32,
        channels=(16, 32, 32, 32, 32, 32, 32, 32),
        final_conv_channels=(16, 16),
    ).eval()
    copy_in_order(with_skips_first(ours), theirs)
    moving, fixed = volumes(2)
    with torch.inference_mode():
        expected = theirs(torch.cat([moving, fixed], dim=1))
        assert expected.std() > 0.1
        torch.testing.assert_close(ours(moving, fixed), expected, atol=1e-4, rtol=1e-4)


def test_voxelmorph_integrates_as_the_network_with_attention_does() -> None:
    network = randomised(VoxelMorph(integration_steps=7))
    moving, fixed = volumes(2)
    with torch.inference_mode():
        velocity = network.velocity(torch.cat([moving, fixed], dim=1))
        assert torch.equal(network(moving, fixed), integrate_at_half_resolution(velocity, 7))


def test_voxelmorph_has_the_decoder_of_the_network_with_attention() -> None:
    def shapes(network: torch.nn.Module) -> dict[str, torch.Size]:
        kept = ("decoder", "final", "flow")
        return {key: value.shape for key, value in network.state_dict().items() if key.startswith(kept)}

    assert shapes(VoxelMorph()) == shapes(CMSANet())


# --- segmentation-based --------------------------------------------------------------------------------


def test_without_the_glands_it_is_voxelmorph() -> None:
    plain, network = randomised(VoxelMorph()), randomised(SegmentationBasedNet())
    state = plain.state_dict()
    first = "encoder.0.convolution.weight"
    state[first] = torch.cat([state[first], torch.zeros_like(state[first])], dim=1)
    network.load_state_dict(state)
    moving, fixed, moving_gland, fixed_gland = volumes(4)
    with torch.inference_mode():
        expected = plain(moving, fixed)
        assert expected.std() > 0.1
        found = network(moving, fixed, moving_gland, fixed_gland)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_glands_enter_after_the_images_the_moving_one_first() -> None:
    network = randomised(SegmentationBasedNet(integration_steps=0))
    given = volumes(4)
    with torch.inference_mode():
        assert torch.equal(network(*given), network.velocity(torch.cat(given, dim=1)))
        assert not torch.allclose(network(*given), network(*given[:2], given[3], given[2]))


# --- LocalNet ------------------------------------------------------------------------------------------


def test_decoder_level_is_that_of_monai() -> None:
    ours = DecoderLevel(6)
    theirs = monai("LocalNetUpSampleBlock")(3, 12, 6, mode="trilinear", align_corners=False)
    randomised(ours)
    parts = torch.nn.ModuleList([ours.up, ours.body])
    copy_in_order(parts, theirs.eval())
    (x,), (skip,) = volumes(1, (3, 4, 5), 12), volumes(1, (6, 8, 10), 6)
    with torch.inference_mode():
        features, share = ours(x, skip)
        expected = theirs(x, skip)
        assert expected.std() > 0.1
        torch.testing.assert_close(features, expected, atol=1e-4, rtol=1e-4)
        assert torch.equal(share, ours.summand(features))


def test_encoder_level_is_that_of_monai_but_for_the_skip() -> None:
    ours, theirs = randomised(EncoderLevel(2, 6, 3)), monai("LocalNetDownSampleBlock")(3, 2, 6, 3).eval()
    copy_in_order(ours, theirs)
    (x,) = volumes(1, (6, 8, 10), 2)
    with torch.inference_mode():
        pooled, skip = ours(x)
        torch.testing.assert_close(pooled, theirs(x)[0], atol=1e-4, rtol=1e-4)
        assert pooled.std() > 0.1
        # The authors' skip leaves before the residual.
        torch.testing.assert_close(skip, theirs.conv_block(x), atol=1e-4, rtol=1e-4)


def test_first_convolution_is_seven_wide_and_all_others_three() -> None:
    kernels = [
        module.kernel_size
        for module in LocalNet(width=2).modules()
        if isinstance(module, (torch.nn.Conv3d, torch.nn.ConvTranspose3d))
    ]
    assert kernels == [(7, 7, 7)] + [(3, 3, 3)] * (len(kernels) - 1)


@pytest.mark.parametrize(("width", "depth"), [(32, 4), (16, 3)])
def test_number_of_parameters_of_localnet_is_that_of_its_description(width: int, depth: int) -> None:
    def convolution(n_in: int, n_out: int, kernel: int = 3) -> int:
        return n_in * n_out * kernel**3 + 2 * n_out  # no bias, scale and shift of the norm

    widths = [width * 2**level for level in range(depth + 1)]
    expected = sum(n * 3 * 27 + 3 for n in widths)
    expected += convolution(2, widths[0], 7) + sum(
        convolution(n_in, n) for n_in, n in itertools.pairwise(widths)
    )
    # A residual of two convolutions down, the same and a transposed convolution up.
    expected += sum(4 * convolution(n, n) + convolution(2 * n, n) for n in widths[:-1])
    assert sum(p.numel() for p in LocalNet(width=width, depth=depth).parameters()) == expected


def test_an_untrained_localnet_moves_nothing_at_all() -> None:
    with torch.inference_mode():
        assert torch.all(LocalNet(width=2).eval()(*volumes(2)) == 0)


def test_displacement_is_the_sum_over_levels() -> None:
    network = LocalNet(width=2, depth=4).eval()
    heads = [network.summand, *(level.summand for level in network.decoder)]
    with torch.inference_mode():
        for index, head in enumerate(heads):
            head.bias.copy_(torch.tensor([1.0, -2.0, 0.5]) * 10**index)
        field = network(*volumes(2))
    assert len(heads) == 5
    expected = torch.tensor([11111.0, -22222.0, 5555.5]).view(1, 3, 1, 1, 1).expand_as(field)
    torch.testing.assert_close(field, expected)


def test_coarse_levels_are_enlarged_about_the_voxels_that_they_pooled() -> None:
    """A ramp over pooled pairs, enlarged, is the ramp over the voxels, away from the edges."""
    network = LocalNet(width=2, depth=1).eval()
    ramp = torch.arange(16.0).view(1, 1, 16, 1, 1).expand(1, 3, 16, 4, 4)
    pooled = functional.avg_pool3d(ramp, 2)
    network.bottom = torch.nn.Identity()
    network.encoder[0].forward = lambda x: (pooled, torch.zeros(1, 2, 16, 4, 4))  # type: ignore[method-assign]
    network.summand = torch.nn.Identity()
    network.decoder[0].forward = lambda x, skip: (x, torch.zeros(1, 3, 16, 4, 4))  # type: ignore[method-assign]
    field = network(*volumes(2, (16, 4, 4)))
    torch.testing.assert_close(field[:, :, 1:-1], ramp[:, :, 1:-1])


# --- RERN ----------------------------------------------------------------------------------------------


def conv_norm_by_hand(
    x: torch.Tensor, convolution: torch.nn.Conv3d, norm: torch.nn.BatchNorm3d
) -> torch.Tensor:
    """Batch norm written out on a plain convolution."""
    y = functional.conv3d(x, convolution.weight, padding=1).movedim(1, -1)
    y = (y - norm.running_mean) / torch.sqrt(norm.running_var + norm.eps) * norm.weight + norm.bias
    return y.movedim(-1, 1)


def test_encoder_block_is_its_equation() -> None:
    block = randomised(EncoderBlock(3, 5))
    (x,) = volumes(1, (4, 5, 6), 3)
    with torch.inference_mode():
        hidden = x
        for convolution, norm, _ in block.convolutions:
            hidden = torch.relu(conv_norm_by_hand(hidden, convolution, norm))
        projection = torch.einsum("oc,bckji->bokji", block.projection.weight[:, :, 0, 0, 0], x)
        expected = hidden + projection + block.projection.bias.view(1, -1, 1, 1, 1)
        assert hidden.std() > 0.1
        torch.testing.assert_close(block(x), expected, atol=1e-4, rtol=1e-4)


def test_encoder_block_projects_only_where_channels_differ() -> None:
    assert isinstance(EncoderBlock(4, 4).projection, torch.nn.Identity)
    block, (x,) = EncoderBlock(4, 4).eval(), volumes(1, (4, 4, 4), 4)
    torch.testing.assert_close(block(x) - block.convolutions(x), x)


def test_decoder_block_is_its_equation() -> None:
    block = randomised(DecoderBlock(6, 4))
    (x,), (skip,) = volumes(1, (2, 3, 4), 6), volumes(1, (4, 6, 8), 4)
    with torch.inference_mode():
        together = functional.conv_transpose3d(x, block.up.weight, block.up.bias, stride=2) + skip
        (first, first_norm, _), (second, second_norm) = block.residual.body
        inner = torch.relu(conv_norm_by_hand(together, first, first_norm))
        expected = torch.relu(together + conv_norm_by_hand(inner, second, second_norm))
        torch.testing.assert_close(block(x, skip), expected, atol=1e-4, rtol=1e-4)
        assert expected.std() > 0.1


def test_rern_is_unlike_in_moving_and_fixed_and_not_integrated() -> None:
    network = randomised(RERN(widths=(2, 4, 4, 4, 4)))
    moving, fixed = volumes(2)
    with torch.inference_mode():
        field = network(moving, fixed)
        assert (field - network(fixed, moving)).abs().max() > 1e-3
        network.flow.weight.mul_(2)
        network.flow.bias.mul_(2)
        torch.testing.assert_close(network(moving, fixed), 2 * field, atol=1e-4, rtol=1e-4)
