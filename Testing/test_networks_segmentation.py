"""Paper B's attention U-Net: its attentions by hand, its stages, and its use on volumes slice by slice."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate

from MRTRUSTraining.networks.attention_unet import (
    AttentionUNet,
    ChannelAttention,
    DecoderStage,
    EncoderStage,
    SliceWise,
    SpatialAttention,
)
from MRTRUSTraining.networks.vnet import GlandProbability

NARROW = (2, 4, 4, 4, 4)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("size", [(11, 9), (8, 9, 7)], ids=["slice", "volume"])
def test_spatial_attention_by_hand(size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = SpatialAttention(dimensions=len(size))
    x = torch.randn(1, 5, *size)
    weight = layer.to_map.weight.detach().numpy()[0]
    assert weight.shape == (2, *(7,) * len(size))
    features = x[0].numpy()
    response = sum(
        correlate(summary, kernel, mode="constant")
        for summary, kernel in zip((features.mean(0), features.max(0)), weight, strict=True)
    )
    expected = features * sigmoid(response + layer.to_map.bias.detach().numpy())
    np.testing.assert_allclose(layer(x)[0].detach().numpy(), expected, atol=1e-5)


def test_channel_attention_by_hand() -> None:
    torch.manual_seed(0)
    layer = ChannelAttention(96)
    assert layer.mlp[0].out_features == 6, "a sixteenth of the channels"
    assert ChannelAttention(32).mlp[0].out_features == 4, "but at least four"
    x = torch.randn(2, 96, 3, 4, 5)

    def mlp(pooled: np.ndarray) -> np.ndarray:
        w1, b1, w2, b2 = (p.detach().numpy() for p in layer.parameters())
        return np.maximum(pooled @ w1.T + b1, 0) @ w2.T + b2

    features = x.numpy()
    weights = sigmoid(mlp(features.mean((2, 3, 4))) + mlp(features.max((2, 3, 4))))
    expected = features * weights[:, :, None, None, None]
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, atol=1e-5)
    assert np.ptp(weights) > 0.01, "channels are weighed differently"


@pytest.mark.parametrize("dimensions", [2, 3])
def test_decoder_adds_the_skip_to_the_enlarged_attended_features(dimensions: int) -> None:
    torch.manual_seed(0)
    stage = DecoderStage(8, 4, dimensions).eval()
    x, skip = torch.randn(1, 8, *(3,) * dimensions), torch.randn(1, 4, *(6,) * dimensions)
    enlarged = stage.up(stage.attention(x))
    assert enlarged.shape == skip.shape
    torch.testing.assert_close(stage(x, skip), stage.convolutions(enlarged + skip))
    # Additive: what moves from one summand to the other changes nothing.
    torch.testing.assert_close(
        stage(x, -enlarged), stage.convolutions(torch.zeros_like(skip)), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("dimensions", [2, 3])
def test_encoder_hands_the_attended_features_down_and_across(dimensions: int) -> None:
    torch.manual_seed(0)
    stage = EncoderStage(1, 4, dimensions).eval()
    x = torch.randn(1, 1, *(8,) * dimensions)
    down, across = stage(x)
    torch.testing.assert_close(across, stage.attention(stage.convolutions(x)))
    blocks = across.unfold(2, 2, 2).unfold(3, 2, 2)
    blocks = blocks.unfold(4, 2, 2) if dimensions == 3 else blocks
    torch.testing.assert_close(down, blocks.flatten(2 + dimensions).amax(-1))


def slice_network() -> AttentionUNet:
    """With weights that tell images apart without a trained network's statistics."""
    torch.manual_seed(0)
    network = AttentionUNet(dimensions=2, widths=NARROW).eval()
    for parameter in network.parameters():
        if parameter.ndim == 4:
            torch.nn.init.normal_(parameter, std=2 / parameter[0].numel() ** 0.5)
    return network


def test_slices_are_those_of_the_network_alone() -> None:
    network, volume = slice_network(), torch.rand(2, 1, 5, 16, 32)
    with torch.inference_mode():
        found = SliceWise(network, slices_per_pass=3)(volume)
        assert found.shape == (2, 2, 5, 16, 32)
        for case in range(2):
            for k in range(5):
                alone = network(volume[case : case + 1, :, k])[0]
                torch.testing.assert_close(found[case, :, k], alone, atol=1e-5, rtol=0)
        assert found.std(2).max() > 1e-3, "slices must differ for this test to tell"


def test_number_of_slices_a_pass_changes_nothing_but_bounds_them() -> None:
    network, batches = slice_network(), list[int]()
    network.register_forward_pre_hook(lambda _, given: batches.append(len(given[0])))
    volume = torch.rand(1, 1, 7, 16, 16)
    with torch.inference_mode():
        whole, parts = (SliceWise(network, slices_per_pass=n)(volume) for n in (7, 3))
    torch.testing.assert_close(whole, parts, atol=1e-5, rtol=0)
    assert batches == [7, 3, 3, 1]


@pytest.mark.parametrize("dimensions", [2, 3])
def test_it_segments_volumes_as_the_pipeline_asks(dimensions: int) -> None:
    network: torch.nn.Module = AttentionUNet(dimensions=dimensions, widths=NARROW)
    network = GlandProbability(SliceWise(network) if dimensions == 2 else network, mirror=True).eval()
    image = torch.rand(1, 1, 16, 16, 32)
    with torch.inference_mode():
        found = network(image)
        torch.testing.assert_close(network(image.flip(-1)).flip(-1), found, atol=1e-5, rtol=0)
    assert found.shape == image.shape
    assert 0 < found.min() < found.max() < 1


def test_other_numbers_of_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="2 or 3, not 4"):
        AttentionUNet(dimensions=4)
