"""Export of trained weights: a TorchScript file, a torch.export program, and the card that drives them."""

from __future__ import annotations

import io
import json
import platform
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch

from MRTRUSRegistrationLib import __version__
from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.models import ModelCard, file_sha256, read_card
from MRTRUSRegistrationLib.outputs import full_disk_said

from .networks.cmsa import MirrorAveraged
from .networks.eight_bit import in_eight_bits
from .networks.named import build_registration_network, build_segmenter
from .networks.vnet import ByDetail, GlandProbability
from .registration_settings import RegistrationSettings, draft_card
from .segmentation_training import SegmentationSettings, network_options
from .trainer import read_saved

_SEGMENTATION_FIGURE = "gland DSC of one network's cleaned mask on the image's own grid, by source of cases"
_STRUCTURES_FIGURE = (
    "DSC of the likeliest class on the image's own grid, by structure and source of cases; of coordinates "
    "the mean distance in the gland, in its half-extents"
)
_REGISTRATION_FIGURE = (
    "misdrawn reference masks, aligned as in the pipeline: per case RMS of the landmarks' centroid distances "
    "(mm) and gland DSC, means over cases"
)
_FILES = ("pt", "pt2", "json")
_TITLES = {"vnet": "V-Net", "cmsa": "Dual-stream registration network with cross-modal spatial attention"}
LICENCE = "Apache-2.0 for the file; see training_data for what the weights were learnt from."


def load_best(
    folder: Path, network: torch.nn.Module, *, beyond: Mapping[str, torch.Tensor] | None = None
) -> dict[str, Any]:
    """Load the weights selected on validation into `network`; returns their record.

    `beyond` are weights for what the run's network lacked.
    """
    path = folder / "best.pt"
    if not path.is_file():
        raise InputError(f"{folder} holds no best.pt; train there first.")
    record = read_saved(path, {"network", "step", "figures"})
    if record is None:
        raise InputError(f"{path} is not a readable file of weights; train again, or name another run.")
    try:
        network.load_state_dict({**(beyond or {}), **record["network"]})
    except RuntimeError as error:
        raise InputError(f"{path} holds the weights of another network.") from error
    if not all(bool(torch.isfinite(value).all()) for value in network.state_dict().values()):
        raise InputError(
            f"{path} holds weights that are not finite; train again, with a lower learning rate."
        )
    network.eval()
    return record


def export_segmentation(
    folder: Path,
    settings: SegmentationSettings,
    output: Path,
    *,
    name: str | None = None,
    title: str = "",
    sharp: Path | None = None,
    note: str = "",
) -> Path:
    """Write the segmenter of a run folder as NAME.pt, NAME.pt2 and NAME.json; returns the card's path.

    NAME defaults to network and modality. With a second run, `sharp`, both networks are written, mixed by the
    detail of the volume.
    """
    folders = [folder] if sharp is None else [folder, sharp]
    networks = [build_segmenter(settings.network, **network_options(settings)) for _ in folders]
    records = [load_best(each, network) for each, network in zip(folders, networks, strict=True)]
    runs = [read_run(each) for each in folders]
    exported, mixing = _probability(networks, settings)
    card = ModelCard(
        name=name or f"{settings.network}-{settings.modality.lower()}",
        title=title or _segmenter_title(settings),
        task="structures" if settings.structures else "segmentation",
        modality=settings.modality,
        architecture=_architecture(
            networks[0],
            exported,
            network_options(settings),
            mirror_averaged=settings.mirror_averaged,
            **mixing,
            **({"weights": "8-bit integers"} if settings.eight_bit else {}),
        ),
        preprocessing=settings.preprocessing,
        grid_vox=settings.window_vox,
        settings=decision(settings),
        training_data=_together([item for run in runs for item in run["training_data"]]),
        figures=tuple(
            _figure(record, _STRUCTURES_FIGURE if settings.structures else _SEGMENTATION_FIGURE)
            for record in records
        ),
        licence=LICENCE,
        file="",
        sha256="",
        provenance=_provenance(records, [command for run in runs for command in run["commands"]], note),
    )
    example = (torch.zeros(1, 1, *settings.training_vox[::-1]),)
    stored = in_eight_bits(exported) if settings.eight_bit else exported
    return write_model(stored, example, card, output)


def _segmenter_title(settings: SegmentationSettings) -> str:
    image = "T2-weighted MR" if settings.modality == "MR" else "TRUS"
    what = " and ".join(settings.structures).replace("_", " ") or "prostate gland"
    return f"{_TITLES.get(settings.network, settings.network)}, {what} in {image}"


def _probability(
    networks: Sequence[torch.nn.Module], settings: SegmentationSettings
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """What is exported, and what the card says of its networks."""
    coordinates = 3 if settings.coordinates else 0
    parts = [
        GlandProbability(network, mirror=settings.mirror_averaged, coordinates=coordinates)
        for network in networks
    ]
    if len(parts) == 1:
        return parts[0].eval(), {}
    mixing = {"middle": settings.detail_middle, "width": settings.detail_width}
    return ByDetail(parts[0], parts[1], **mixing).eval(), {"networks": 2, "mixed_by_detail": mixing}


def export_registration(
    folder: Path,
    settings: RegistrationSettings,
    output: Path,
    *,
    name: str | None = None,
    title: str = "",
    note: str = "",
) -> Path:
    """Write the registration network of a run folder as NAME.pt, NAME.pt2 and NAME.json.

    NAME, by which the pipeline offers it as a method, defaults to the network's.
    """
    network = build_registration_network(settings.network, **settings.options)
    record, run = load_best(folder, network), read_run(folder)
    card = replace(
        draft_card(settings),
        name=name or settings.network,
        title=title or _TITLES.get(settings.network, settings.network),
        architecture=_architecture(
            network, network, settings.options, mirror_averaged=settings.mirror_averaged
        ),
        training_data=tuple(run["training_data"]),
        figures=(_figure(record, _REGISTRATION_FIGURE),),
        licence=LICENCE,
        provenance=_provenance([record], run["commands"], note),
    )
    inputs = 4 if settings.inputs == "images+masks" else 2
    channels = settings.options.get("channels", 1)
    example = tuple(torch.zeros(1, channels, *settings.grid_vox[::-1]) for _ in range(inputs))
    return write_model(_exported(network, settings).eval(), example, card, output)


def _exported(network: torch.nn.Module, settings: RegistrationSettings) -> torch.nn.Module:
    if not settings.mirror_averaged:
        return network
    if settings.inputs == "images+masks":
        return MirrorAveragedWithGlands(network)
    return MirrorAveraged(network, coordinates=settings.coordinates)


class MirrorAveragedWithGlands(torch.nn.Module):
    """As `MirrorAveraged`, for a network that is given both glands too: TorchScript has no optional ones."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        moving: torch.Tensor,
        fixed: torch.Tensor,
        moving_gland: torch.Tensor,
        fixed_gland: torch.Tensor,
    ) -> torch.Tensor:
        straight = self.network(moving, fixed, moving_gland, fixed_gland)
        mirrored = self.network(
            moving.flip([4]), fixed.flip([4]), moving_gland.flip([4]), fixed_gland.flip([4])
        ).flip([4])
        sign = torch.ones(1, 3, 1, 1, 1, dtype=mirrored.dtype, device=mirrored.device)
        sign[:, 2] = -1.0
        return (straight + mirrored * sign) / 2


def decision(settings: SegmentationSettings) -> dict[str, Any]:
    """How the probability becomes a mask, or which structures the probabilities are of."""
    if settings.structures:
        return {"structures": list(settings.structures)}
    further = {"volume_agreement": settings.volume_agreement, "sharper": settings.sharper}
    said = {name: asdict(value) for name, value in further.items() if value is not None}
    return {"threshold": settings.threshold, **said}


def _architecture(
    network: torch.nn.Module, exported: torch.nn.Module, options: Mapping[str, Any], **details: Any
) -> dict[str, Any]:
    parameters = sum(parameter.numel() for parameter in exported.parameters())
    return {"name": type(network).__name__, "parameters": parameters, **options, **details}


def _figure(record: Mapping[str, Any], definition: str) -> dict[str, Any]:
    values = {key: round(value, 4) for key, value in record["figures"].items() if key != "score"}
    return {"split": "validation (the model was selected on it)", "definition": definition, **values}


def read_run(folder: Path) -> dict[str, Any]:
    """What a training run learnt from and the commands that drove it, from its run.json.

    Of a run that began with the weights of another run or of a model, that one's come first, where it is
    still there.
    """
    path = folder / "run.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        own = {key: list(content[key]) for key in ("commands", "training_data")}
        before = content.get("start_from")
    except FileNotFoundError as error:
        raise InputError(f"{folder} holds no run.json; train there first.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not the record of a training run ({error}); train again.") from error
    if before is None or not Path(before).exists() or Path(before).resolve() == folder.resolve():
        return own
    earlier = _of_model(Path(before)) if Path(before).is_file() else read_run(Path(before))
    return {key: list(_together([*earlier[key], *own[key]])) for key in own}


def _of_model(card_path: Path) -> dict[str, Any]:
    """The same of a model, from its card."""
    card = read_card(card_path)
    command = card.provenance.get("command")
    return {"commands": [command] if command else [], "training_data": list(card.training_data)}


def _together(items: Sequence[Any]) -> tuple[Any, ...]:
    """Every set of training data, or command, once."""
    return tuple(item for n, item in enumerate(items) if item not in items[:n])


def _provenance(records: Sequence[Mapping[str, Any]], commands: Sequence[str], note: str) -> dict[str, Any]:
    return {
        "command": "; then ".join(commands),
        "note": note,
        "step": records[0]["step"] if len(records) == 1 else [record["step"] for record in records],
        "exported": date.today().isoformat(),
        "mrtrus": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def write_model(
    network: torch.nn.Module, example: tuple[torch.Tensor, ...], card: ModelCard, output: Path
) -> Path:
    """Write NAME.pt, NAME.pt2 and NAME.json, NAME being the card's; returns the card's path.

    All are written aside first, so that an interrupted export leaves the model that was there.
    """
    output.mkdir(parents=True, exist_ok=True)
    with full_disk_said(output), tempfile.TemporaryDirectory(dir=output, prefix=".writing-") as aside:
        script_path, program_path, card_path = (Path(aside) / f"{card.name}.{end}" for end in _FILES)
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message=r".*torch\.jit.*deprecated.*", category=DeprecationWarning
            )
            script = torch.jit.script(network)
        # By this process, not by torch, which ends it where the disk is full. Half precision halves the file;
        # the loader computes in single precision again.
        script_path.write_bytes(script.half().save_to_buffer())
        network.float()
        program = io.BytesIO()
        torch.export.save(torch.export.export(network, example), program)
        program_path.write_bytes(program.getbuffer())
        finished = replace(card, file=script_path.name, sha256=file_sha256(script_path))
        card_path.write_text(finished.to_json(), encoding="utf-8")
        for path in (script_path, program_path, card_path):
            path.replace(output / path.name)
    return output / card_path.name
