"""The affine head of the registration network: where it reads features to be, and what it makes of them."""

import pytest
import torch
from torch.nn import functional

from MRTRUSTraining.networks.cmsa import AffineMotion, CMSANet, MirrorAveraged, centres, voxel_places

SIZE = (16, 16, 32)


@pytest.mark.slow
def test_a_peak_is_found_where_it_is() -> None:
    maps = torch.zeros(2, 1, 8, 10, 12)
    maps[0, 0, 2, 3, 4] = maps[1, 0, 7, 0, 11] = 60.0
    expected = [[(2 - 3.5) / 4, (3 - 4.5) / 5, (4 - 5.5) / 6], [3.5 / 4, -4.5 / 5, 5.5 / 6]]
    torch.testing.assert_close(centres(maps)[:, 0], torch.tensor(expected))


def test_an_even_map_has_its_centre_in_the_middle() -> None:
    torch.testing.assert_close(centres(torch.ones(1, 3, 4, 6, 8)), torch.zeros(1, 3, 3), atol=1e-6, rtol=0)


def test_between_two_voxels_the_centre_follows_their_weights() -> None:
    maps = torch.full((1, 1, 4, 4, 8), -60.0)
    maps[0, 0, 1, 1, 2], maps[0, 0, 1, 1, 3] = 0.0, torch.log(torch.tensor(3.0))
    assert float(centres(maps)[0, 0, 2]) == pytest.approx((2.75 - 3.5) / 4)


def test_places_are_voxels_from_the_middle() -> None:
    places = voxel_places(torch.zeros(1, 5, 2, 3, 4))
    assert places.shape == (3, 2, 3, 4)
    torch.testing.assert_close(places[:, 0, 0, 0], torch.tensor([-0.5, -1.0, -1.5]))
    torch.testing.assert_close(places.mean((1, 2, 3)), torch.zeros(3))


def test_its_parameters_are_an_affine_velocity_in_voxels() -> None:
    head = AffineMotion((4,), points=3)
    with torch.no_grad():
        head.parameters_of.bias.copy_(torch.tensor([0, 1.0, 0, -1.0, 0, 0, 0, 0, 0, 0.5, 0, -2.0]))
    features, like = [torch.rand(1, 4, 4, 4, 4)], torch.zeros(1, 3, 8, 8, 8)
    velocity = head(features, features, like)
    k, j, _ = voxel_places(like)
    zero = torch.zeros_like(k)
    torch.testing.assert_close(velocity[0], torch.stack([0.1 * j + 0.5, -0.1 * k, zero - 2.0]))


def test_the_network_begins_as_the_one_without_it() -> None:
    torch.manual_seed(0)
    network = CMSANet(normalisation="instance", affine=True).eval()
    torch.nn.init.normal_(network.flow.weight, std=1.0)
    without = CMSANet(normalisation="instance").eval()
    without.load_state_dict(network.state_dict(), strict=False)
    moving, fixed = torch.rand(2, 1, 1, *SIZE)
    with torch.inference_mode():
        expected = without(moving, fixed)
        assert float(expected.abs().max()) > 0.1
        torch.testing.assert_close(network(moving, fixed), expected)


def test_it_has_the_parameters_that_it_needs() -> None:
    def count(network: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in network.parameters())

    maps = 2 * 2 * (32 + 1) * 24
    assert count(CMSANet(affine=True)) - count(CMSANet()) == maps + (6 * 24 * 2 + 1) * 96 + 97 * 12


@pytest.mark.slow
def test_it_learns_a_rotation_from_where_things_are() -> None:
    """Random balls, turned about the first axis: soon the head alone tells by how much."""
    torch.manual_seed(0)
    head = AffineMotion((2,), points=6, hidden=24)
    optimiser = torch.optim.Adam(head.parameters(), lr=1e-2)
    errors = []
    for _ in range(150):
        angle = 0.3 * torch.randn(8)
        moving, fixed = balls(torch.zeros(8)), balls(angle)
        velocity = head([moving], [fixed], fixed)
        _, j, i = voxel_places(fixed)
        error = (velocity[:, 1] - angle.view(-1, 1, 1, 1) * i).abs().mean()
        error = error + (velocity[:, 2] + angle.view(-1, 1, 1, 1) * j).abs().mean()
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
        errors.append(float(error.detach()))
    assert sum(errors[-10:]) < 0.4 * sum(errors[:10])


def balls(angle: torch.Tensor) -> torch.Tensor:
    """(B, 2, 8, 16, 16): two balls, at right angles about the middle, turned by angles (B,) in radians."""
    k, j, i = voxel_places(torch.zeros(1, 1, 8, 16, 16))
    found = []
    for start in (0.0, torch.pi / 2):
        middle_j, middle_i = 5 * torch.sin(angle + start), 5 * torch.cos(angle + start)
        away = k**2 + (j - middle_j.view(-1, 1, 1, 1)) ** 2 + (i - middle_i.view(-1, 1, 1, 1)) ** 2
        found.append(6 * torch.exp(-away / 4))
    return torch.stack(found, dim=1)


@pytest.mark.slow
def test_what_is_exported_is_the_same() -> None:
    torch.manual_seed(0)
    network = CMSANet(normalisation="instance", channels=2, affine=True).eval()
    assert network.affine is not None
    torch.nn.init.normal_(network.affine.parameters_of.weight, std=0.1)
    averaged = MirrorAveraged(network)
    moving, fixed = torch.rand(2, 1, 2, *SIZE)
    with torch.inference_mode():
        expected = averaged(moving, fixed)
        torch.testing.assert_close(torch.jit.script(averaged)(moving, fixed), expected)
        # Of a pair and its mirror image the field is the mirrored one.
        mirrored = averaged(moving.flip(4), fixed.flip(4)).flip(4)
    torch.testing.assert_close(mirrored * torch.tensor([1.0, 1.0, -1.0]).view(1, 3, 1, 1, 1), expected)
    assert float(functional.l1_loss(expected, torch.zeros_like(expected))) > 0.01


def test_it_is_a_yes_or_a_no() -> None:
    with pytest.raises(ValueError, match="affine must be true or false, not 'yes'"):
        CMSANet(affine="yes")  # type: ignore[arg-type]
