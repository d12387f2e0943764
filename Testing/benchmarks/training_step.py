"""One training step of the CMSA network against a plain MONAI VoxelMorph of equal width, in the same run.

`python Testing/benchmarks/training_step.py [--device cuda] [--size 128 128 128] [--repeats 10]`: forward,
loss, backward and Adam on one pair; the two networks take turns, so that a machine whose speed drifts treats
both alike. The losses are of the same kind: mutual information, Dice and the field's gradient, MONAI's own
for MONAI's network. Quote the ratio. The default size is that of the bundled grid of 1.5 mm voxels.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

from MRTRUSTraining.networks.named import build_registration_network
from MRTRUSTraining.registration_loss import region_matching_loss
from MRTRUSTraining.registration_samples import RegistrationSample
from MRTRUSTraining.registration_settings import RegionLoss

Step = Callable[[], None]


@dataclass(frozen=True)
class Figures:
    """Seconds of each step, and the peak memory in MB that the network's steps needed."""

    seconds: list[float]
    peak_mb: float

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)


def pair(size_kji: tuple[int, int, int], device: str) -> RegistrationSample:
    """A pair with a gland and a landmark, each a ball; images are noise."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.meshgrid(*(torch.arange(n) - (n - 1) / 2 for n in size_kji), indexing="ij")
    radius = torch.stack(axes).square().sum(0).sqrt()[None]
    labels = torch.stack([(radius < share * min(size_kji)).float() for share in (0.4, 0.1)], dim=1)
    images = torch.rand(2, 1, 1, *size_kji, generator=generator) * labels[:, :1]
    shifted = labels.roll(2, -1)
    return RegistrationSample("pair", images[0], images[1], labels, shifted, 1.5).to(torch.device(device))


def cmsa_step(sample: RegistrationSample, *, bf16: bool) -> Step:
    """One step of the paper's network with the salient region matching loss."""
    device = sample.fixed_image.device
    network = build_registration_network("cmsa").to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-4)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            displacement = network(sample.moving_image, sample.fixed_image).float()
        loss, _ = region_matching_loss(sample, displacement, RegionLoss())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


def monai_step(sample: RegistrationSample, *, bf16: bool) -> Step:
    """One step of MONAI's VoxelMorph, as wide as the CMSA network in each level, with MONAI's losses."""
    from monai.losses import DiceLoss, DiffusionLoss, GlobalMutualInformationLoss
    from monai.networks.blocks import Warp
    from monai.networks.nets import VoxelMorph, VoxelMorphUNet

    device = sample.fixed_image.device
    widths = (16, 32, 32, 32, 32, 32, 32, 32)
    unet = VoxelMorphUNet(3, 2, unet_out_channels=32, channels=widths, final_conv_channels=(16, 16))
    network = VoxelMorph(backbone=unet, integration_steps=7, half_res=True).to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-4)
    information, dice = GlobalMutualInformationLoss(num_bins=32), DiceLoss()
    gradient, warp = DiffusionLoss(), Warp()

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            warped, displacement = network(sample.moving_image, sample.fixed_image)
        displacement = displacement.float()
        labels = warp(sample.moving_labels, displacement)
        loss = information(warped.float(), sample.fixed_image) + dice(labels, sample.fixed_labels)
        loss = loss + 0.4 * gradient(displacement)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


STEPS = {"cmsa": cmsa_step, "MONAI VoxelMorph": monai_step}


def compare(
    size_kji: tuple[int, int, int], *, device: str = "cpu", repeats: int = 10, bf16: bool = True
) -> dict[str, Figures]:
    """Both networks' figures by name; the first step of each, which sets things up, is not counted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sample = pair(size_kji, device)
        steps = {name: make(sample, bf16=bf16) for name, make in STEPS.items()}
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for repeat in range(repeats + 1):
            for name, step in steps.items():
                taken = _timed(step, device)
                if repeat:
                    seconds[name].append(taken)
    peaks = {name: peak_mb(name, size_kji, device=device, bf16=bf16) for name in steps}
    return {name: Figures(seconds[name], peaks[name]) for name in steps}


def _timed(step: Step, device: str) -> float:
    start = time.perf_counter()
    step()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_mb(name: str, size_kji: tuple[int, int, int], *, device: str, bf16: bool) -> float:
    """What two steps of one network need beyond the libraries, in a process of its own."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_mb, (name, size_kji, device, bf16))


def _peak_mb(name: str, size_kji: tuple[int, int, int], device: str, bf16: bool) -> float:
    warnings.simplefilter("ignore")
    # Libraries are loaded, and counted, by a pair too small to matter.
    STEPS[name](pair((16, 16, 16), device), bf16=bf16)()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    before = _highest_mb()
    step = STEPS[name](pair(size_kji, device), bf16=bf16)
    for _ in range(2):
        step()
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 2**20
    return _highest_mb() - before


def _highest_mb() -> float:
    """The most memory that this process has held (Linux); getrusage would count the process that began it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def ratio(found: dict[str, Figures]) -> float:
    """Time of a CMSA step by that of the MONAI step after it, median over the turns."""
    ours, theirs = (found[name].seconds for name in STEPS)
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=3, default=(48, 48, 64), help="array axes k j i")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--single-precision", action="store_true")
    options = parser.parse_args()
    size = (options.size[0], options.size[1], options.size[2])
    found = compare(size, device=options.device, repeats=options.repeats, bf16=not options.single_precision)
    print(f"{size[0]}×{size[1]}×{size[2]} voxels on {options.device}, {torch.get_num_threads()} threads")
    for name, figures in found.items():
        print(f"{name:18s} {figures.median_s:8.3f} s a step, peak {figures.peak_mb:6.0f} MB")
    print(f"time cmsa / MONAI VoxelMorph: {ratio(found):.2f} (median of {options.repeats} turns)")


if __name__ == "__main__":
    main()
