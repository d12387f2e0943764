"""What every network has in common: sizes, parameters, gradients, export formats, names and their errors."""

import warnings
from typing import Any

import pytest
import torch

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSTraining.networks.named import (
    REGISTRATION_NETWORKS,
    SEGMENTERS,
    build_registration_network,
    build_segmenter,
)

NAMES = [*SEGMENTERS, *REGISTRATION_NETWORKS]
# Narrow networks of the same form, so that a test takes a fraction of a second.
NARROW: dict[str, dict[str, Any]] = {
    "vnet": {"widths": [2, 4, 4, 4, 4]},
    "attention-unet-2d": {"widths": [2, 4, 4, 4, 4], "slices_per_pass": 5},
    "attention-unet-3d": {"widths": [2, 4, 4, 4, 4]},
    "localnet": {"width": 4},
    "rern": {"widths": [2, 4, 4, 4, 4]},
}
SIZE = (16, 16, 32)


def build(name: str, **options: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    return (build_segmenter if name in SEGMENTERS else build_registration_network)(name, **options)


def with_large_head(network: torch.nn.Module) -> torch.nn.Module:
    """A network that moves things by voxels, as a trained one does."""
    heads = [p for key, p in network.named_parameters() if "flow.weight" in key or "summand.weight" in key]
    for head in heads:
        torch.nn.init.normal_(head, std=0.3)
    return network


def inputs(name: str, batch: int = 1) -> tuple[torch.Tensor, ...]:
    count = 1 if name in SEGMENTERS else 4 if name == "segmentation-based" else 2
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.rand(batch, 1, *SIZE, generator=generator) for _ in range(count))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vnet", 9_443_266),
        ("attention-unet-2d", 1_758_382),
        ("attention-unet-3d", 5_073_150),
        ("cmsa", 412_411),
        ("localnet", 18_909_743),
        ("segmentation-based", 328_195),
        ("voxelmorph", 327_331),
        ("rern", 5_104_627),
    ],
)
def test_number_of_parameters(name: str, expected: int) -> None:
    assert sum(p.numel() for p in build(name).parameters()) == expected


@pytest.mark.parametrize("name", NAMES)
def test_shape_and_dependence_on_every_input(name: str) -> None:
    network = with_large_head(build(name, **NARROW.get(name, {}))).eval()
    given = tuple(x.requires_grad_() for x in inputs(name, batch=2))
    output = network(*given)
    assert output.shape == (2, 2 if name in SEGMENTERS else 3, *SIZE)
    (output[0] ** 2).sum().backward()
    for x in given:
        assert x.grad is not None
        assert x.grad[0].abs().max() > 0
        assert torch.all(x.grad[1] == 0), "in evaluation, cases of a batch are apart"


@pytest.mark.parametrize("name", NAMES)
def test_gradient_reaches_every_parameter(name: str) -> None:
    network = with_large_head(build(name, **NARROW.get(name, {}))).train()
    output = network(*inputs(name, batch=2))
    weights = torch.rand(output.shape, generator=torch.Generator().manual_seed(2))
    (output * weights).sum().backward()
    missed = [key for key, p in network.named_parameters() if p.grad is None or not torch.any(p.grad != 0)]
    # An instance norm takes away the bias of the convolution before it.
    assert name == "vnet" or not missed
    assert not [key for key in missed if not key.endswith("bias")]


@pytest.mark.parametrize("name", REGISTRATION_NETWORKS)
def test_registration_starts_with_hardly_any_displacement(name: str) -> None:
    network = build(name, **NARROW.get(name, {})).train()
    with torch.inference_mode():
        assert network(*inputs(name, batch=2)).abs().max() < 5e-3


@pytest.mark.parametrize("name", REGISTRATION_NETWORKS)
def test_displacements_keep_their_digits_in_mixed_precision(name: str) -> None:
    network = build(name, **NARROW.get(name, {})).eval()
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        assert network(*inputs(name)).dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_torchscript_and_exported_program_compute_what_eager_does(name: str) -> None:
    network, given = with_large_head(build(name, **NARROW.get(name, {}))).eval(), inputs(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.script(network)
        program = torch.export.export(network, given).module()
    with torch.inference_mode():
        eager = network(*given)
        assert eager.std() > 1e-3, "a constant output would hide differences"
        torch.testing.assert_close(script(*given), eager, atol=1e-5, rtol=0)
        torch.testing.assert_close(program(*given), eager, atol=1e-5, rtol=0)


# --- names ---------------------------------------------------------------------------------------------


def test_options_reach_the_network() -> None:
    assert build("cmsa", attention=False, integration_steps=0).integration_steps == 0
    assert sum(p.numel() for p in build("cmsa", attention=False).parameters()) == 405_411
    assert build("attention-unet-2d", slices_per_pass=3).slices_per_pass == 3
    assert build("vnet", dropout=0.25).dropout.p == 0.25
    # DeepReg's demo: 16 channels, levels 0 to 3.
    assert len(build("localnet", width=16, depth=3).decoder) == 3


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="no segmentation network 'v-net'; choose one of vnet, attention-un"):
        build_segmenter("v-net")
    with pytest.raises(InputError, match=r"no registration network 'vnet'; choose one of cmsa, .*rern"):
        build_registration_network("vnet")


def test_an_unknown_option_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="'cmsa' has no option 'atention'; its options are attention, integ"):
        build_registration_network("cmsa", atention=True)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vnet", {"widths": [8, 16]}),
        ("vnet", {"dropout": 3.0}),
        ("localnet", {"width": "wide"}),
        ("localnet", {"width": 0}),
        ("localnet", {"depth": 0}),
        ("attention-unet-2d", {"slices_per_pass": 0}),
        ("attention-unet-3d", {"widths": []}),
        ("rern", {"widths": [8]}),
        ("rern", {"widths": 8}),
        ("rern", {"widths": "16-32"}),
        ("cmsa", {"attention": "none"}),
        ("voxelmorph", {"integration_steps": -1}),
    ],
)
def test_a_value_that_cannot_be_is_an_input_error(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"'{name}' cannot be built with {next(iter(options))}="):
        build(name, **options)


def test_the_mappings_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        SEGMENTERS["mine"] = torch.nn.Identity  # type: ignore[index]
