"""Models: a TorchScript file with a JSON card beside it, which drives everything done with the model."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy.ndimage import uniform_filter

from .errors import InputError
from .geometry import Grid, orientation_direction, resample

if TYPE_CHECKING:
    import torch

# Structures that models tell apart and that do not belong to the gland.
BEYOND_GLAND = frozenset({"seminal_vesicles"})
_LOG = logging.getLogger(__name__)
# The settings of a card that are numbers, and the numbers in its setting `volume_agreement`.
_NUMBERS = ("threshold", "intensity_floor", "context", "margin_mm", "extend_mm")
_AGREEMENT = ("ratio", "ratio_log_sd", "logit_sd")
CARD_FORMAT = 1
Task = Literal["segmentation", "registration", "structures"]


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a network's input.

    The axes are put into the order and sense of `orientation`, the image is smoothed with a Gaussian of
    `smoothing_mm` (standard deviation), resampled to `spacing_mm` (i, j, k) and mapped linearly so that the
    two `percentiles` of its intensities become 0 and 1, clamped.
    """

    orientation: str
    spacing_mm: tuple[float, float, float]
    smoothing_mm: float = 0.0
    percentiles: tuple[float, float] = (0.5, 99.5)


@dataclass(frozen=True)
class ModelCard:
    """What a model is, what it wants, and what is known about it.

    `grid_vox` is (i, j, k): the sliding window of a segmentation model, the whole input of a registration
    model. `settings` holds what only one task needs; `sha256` is of the TorchScript file.
    """

    name: str
    title: str
    task: Task
    modality: str
    architecture: dict[str, Any]
    preprocessing: Preprocessing
    grid_vox: tuple[int, int, int]
    settings: dict[str, Any]
    training_data: tuple[dict[str, Any], ...]
    figures: tuple[dict[str, Any], ...]
    licence: str
    file: str
    sha256: str
    format: int = CARD_FORMAT
    provenance: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"


@dataclass(frozen=True)
class InstalledModel:
    """A card found in a models folder; the file is checked when the model is loaded."""

    card: ModelCard
    card_path: Path

    @property
    def file_path(self) -> Path:
        return self.card_path.parent / self.card.file

    @property
    def intact(self) -> bool:
        return self.file_path.is_file() and file_sha256(self.file_path) == self.card.sha256


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def resources_folder() -> Path:
    """The module's Resources: inside the package when installed, beside it in Slicer and in the source."""
    package = Path(__file__).resolve().parent
    inside = package / "Resources"
    return inside if inside.is_dir() else package.parent / "Resources"


def models_folders(extra: Path | None = None) -> list[Path]:
    """Where models are looked for: `extra`, $MRTRUS_MODELS, the user's own folder, the bundled one.

    `InputError` where one of the first two is named and does not exist.
    """
    named = _folder_of_variable()
    if named is not None and not named.is_dir():
        raise InputError(f"The models folder {named} of MRTRUS_MODELS does not exist; correct or unset it.")
    if extra is not None and not extra.is_dir():
        raise InputError(f"The models folder {extra} does not exist; give a folder with model cards.")
    return _existing_folders(extra)


def _existing_folders(extra: Path | None) -> list[Path]:
    # Unlike Path.home() this does not fail for a user without a home, as containers have them.
    own = Path(os.path.expanduser("~/.local/share/mrtrus/models"))
    folders = (extra, _folder_of_variable(), own, resources_folder() / "Models")
    return [folder for folder in folders if folder is not None and folder.is_dir()]


def _folder_of_variable() -> Path | None:
    named = os.environ.get("MRTRUS_MODELS")
    return Path(named) if named else None


def read_card(path: Path) -> ModelCard:
    """Read a card; `InputError` when it is not one or of a format that this version does not know."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw.get("format") != CARD_FORMAT:
            raise InputError(
                f"The model card {path} has format {raw.get('format')!r}, but this version reads format "
                f"{CARD_FORMAT}; export the model again."
            )
        preprocessing = raw.pop("preprocessing")
        raw["preprocessing"] = Preprocessing(**{key: _tupled(value) for key, value in preprocessing.items()})
        card = ModelCard(**{key: _tupled(value) for key, value in raw.items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a readable model card ({error}); export the model again.") from error
    if wrong := _wrong_in(card) or _wrong_setting(card):
        raise InputError(f"The model card {path} has no usable {wrong}; export the model again.")
    return card


def _wrong_in(card: ModelCard) -> str | None:
    """The first key of a card whose value is of another kind than it must be."""
    told = card.preprocessing
    right = {
        "name": isinstance(card.name, str),
        "modality": isinstance(card.modality, str),
        "file": isinstance(card.file, str),
        "settings": isinstance(card.settings, dict),
        "architecture": isinstance(card.architecture, dict),
        "figures": isinstance(card.figures, tuple) and all(isinstance(each, dict) for each in card.figures),
        "grid_vox": _three(card.grid_vox, whole=True),
        "preprocessing (spacing_mm)": _three(told.spacing_mm),
        "preprocessing (orientation)": _is_orientation(told.orientation),
        "preprocessing (smoothing_mm)": _is_number(told.smoothing_mm),
        "preprocessing (percentiles)": _are_percentiles(told.percentiles),
    }
    return next((key for key, holds in right.items() if not holds), None)


def _wrong_setting(card: ModelCard) -> str | None:
    """The first setting whose value is of another kind than it must be."""
    said, structures = card.settings, card.settings.get("structures")
    right = {key: _is_number(said[key]) for key in _NUMBERS if key in said}
    right["alignment"] = isinstance(said.get("alignment", ""), str)
    right["margin_mm"] = right.get("margin_mm", True) and said.get("margin_mm", 0) >= 0
    right["box"] = said.get("box", "gland") in ("gland", "volume")
    if card.task == "structures":
        right["structures"] = isinstance(structures, list) and structures != [] and _are_texts(structures)
    elif structures is not None:
        right["structures"] = isinstance(structures, dict) and _are_texts(structures.values())
    if (agreement := said.get("volume_agreement")) is not None:
        right["volume_agreement"] = isinstance(agreement, dict) and all(
            _is_number(agreement.get(key)) and agreement[key] > 0 for key in _AGREEMENT
        )
    return next((f"settings ({key})" for key, holds in right.items() if not holds), None)


def _three(values: Any, *, whole: bool = False) -> bool:
    """Whether these are three positive numbers."""
    several = isinstance(values, tuple) and len(values) == 3
    return several and all(
        _is_number(value) and value > 0 and (isinstance(value, int) or not whole) for value in values
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _are_texts(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _are_percentiles(values: Any) -> bool:
    """Whether these are two percentiles, the lower one first."""
    two = isinstance(values, tuple) and len(values) == 2 and all(_is_number(value) for value in values)
    return two and 0 <= values[0] < values[1] <= 100


def _is_orientation(code: Any) -> bool:
    try:
        return isinstance(code, str) and bool(orientation_direction(code))
    except ValueError:
        return False


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def list_models(extra: Path | None = None) -> list[InstalledModel]:
    """Every model in the models folders; where two share a name, the first folder's wins."""
    return _first_of_each_name(model for folder in models_folders(extra) for model in _models_in(folder))


def usable_models(extra: Path | None = None) -> list[InstalledModel]:
    """`list_models` without the folders that are missing or hold a wrong card: for lists to choose from.

    Whoever registers with such a folder is told what is wrong with it.
    """
    found: list[InstalledModel] = []
    for folder in _existing_folders(extra):
        with suppress(InputError):
            found += _models_in(folder)
    return _first_of_each_name(found)


def _models_in(folder: Path) -> list[InstalledModel]:
    return [InstalledModel(read_card(path), path) for path in sorted(folder.glob("*.json"))]


def _first_of_each_name(models: Iterable[InstalledModel]) -> list[InstalledModel]:
    found: dict[str, InstalledModel] = {}
    for model in models:
        found.setdefault(model.card.name, model)
    return list(found.values())


def find_model(
    *, task: Task, modality: str, name: str | None = None, extra: Path | None = None
) -> InstalledModel:
    """The model of that name, or the first one for the task and modality.

    `InputError` when none fits, or its file is missing or not the card's.
    """
    for model in list_models(extra):
        card = model.card
        if card.task == task and card.modality == modality and name in (None, card.name):
            check_file(model)
            return model
    wanted = f"named {name!r} " if name else ""
    raise InputError(
        f"No {task} model {wanted}for {modality} is installed; put a model and its card into a models folder "
        "(see `mrtrus models`) or give one with --models."
    )


@dataclass(frozen=True)
class Sharper:
    """A card's setting `sharper`: for a volume of more than `detail` the other `model` is taken.

    Of a registration model it is the TRUS that decides, and the other model is one too. Of a segmenter it is
    the image itself, and the other is a model of structures, which draws the gland again.
    """

    detail: float
    model: str


def model_for_detail(model: InstalledModel, trus: sitk.Image, extra: Path | None = None) -> InstalledModel:
    """The registration model, or the one that its card names for volumes as sharp as this TRUS.

    The volume's `detail` is that of the image as the first model's card prepares it. `extra` is searched
    first. `InputError` when the other model is not installed.
    """
    sharper = _sharper(model.card)
    if sharper is None or detail(prepare_image(trus, model.card.preprocessing)) <= sharper.detail:
        return model
    if sharper.model not in [each.card.name for each in list_models(extra)]:
        raise InputError(
            f"The TRUS volume is sharp, for which {model.card.name} needs the model {sharper.model}, which "
            "is not installed; put it and its card into a models folder (see `mrtrus models`)."
        )
    _LOG.info("The TRUS volume is sharp: %s instead of %s", sharper.model, model.card.name)
    return find_model(task="registration", modality=model.card.modality, name=sharper.model, extra=extra)


def model_to_draw_again(segmenter: InstalledModel, prepared: sitk.Image) -> InstalledModel | None:
    """The model of structures that a segmenter's card names for an image as sharp as this, else None.

    The image is as the segmenter's card prepares it. The other model is looked for beside the card first;
    `InputError` when it is not installed.
    """
    sharper = _sharper(segmenter.card)
    if sharper is None or detail(prepared) <= sharper.detail:
        return None
    return drawers(segmenter)[-1]


def drawers(segmenter: InstalledModel) -> list[InstalledModel]:
    """A segmenter, and the model of structures that its card names for sharp images, if it names one."""
    sharper, card = _sharper(segmenter.card), segmenter.card
    if sharper is None:
        return [segmenter]
    options = {"modality": card.modality, "name": sharper.model, "extra": segmenter.card_path.parent}
    return [segmenter, find_model(task="structures", **options)]  # type: ignore[arg-type]


def _sharper(card: ModelCard) -> Sharper | None:
    said = card.settings.get("sharper")
    if said is None:
        return None
    try:
        return Sharper(float(said["detail"]), str(said["model"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"The card of {card.name} does not say in `sharper` from which detail on which model is to be "
            "used; export the model again."
        ) from error


def check_file(model: InstalledModel) -> None:
    """`InputError` when the file of a card is missing or not the one that the card describes."""
    if not model.file_path.is_file():
        raise InputError(
            f"The model card {model.card_path} names {model.card.file}, which is missing; install it again."
        )
    if not model.intact:
        raise InputError(
            f"The checksum of {model.file_path} is not the one in its card, so it is not used; install the "
            "model again."
        )


def load_network(model: InstalledModel, device: str) -> torch.jit.ScriptModule:
    """The network on `device`, for computing only; `InputError` when its file is not the card's or missing.

    A network that was loaded before is handed out again, so that a process that runs many cases loads each
    model once; the file is checked every time.
    """
    check_file(model)
    return _loaded_network(model.file_path, model.card.sha256, device)


# Keyed by the content's checksum, so that a file that was replaced is loaded anew.
@lru_cache(maxsize=8)
def _loaded_network(path: Path, sha256: str, device: str) -> torch.jit.ScriptModule:
    import warnings

    import torch

    with warnings.catch_warnings():
        # TorchScript is the shipped format; only its deprecation notice is silenced.
        warnings.filterwarnings("ignore", message=r".*torch\.jit.*deprecated.*", category=DeprecationWarning)
        try:
            network = torch.jit.load(str(path), map_location=device)
        except RuntimeError as error:
            raise InputError(
                f"{path} is not a TorchScript model that this torch can load; export it again."
            ) from error
    _LOG.info("Loaded the model %s on %s", path.name, device)
    return network.float().eval()


def prepare_image(image: sitk.Image, preprocessing: Preprocessing) -> sitk.Image:
    """The image as the card wants it: oriented, smoothed, resampled, intensities in 0…1 (float32)."""
    oriented = sitk.DICOMOrient(sitk.Cast(image, sitk.sitkFloat32), preprocessing.orientation)
    scaled = rescale_intensity(oriented, preprocessing.percentiles)
    if preprocessing.smoothing_mm > 0:
        scaled = sitk.SmoothingRecursiveGaussian(scaled, preprocessing.smoothing_mm)
    grid = Grid.of(scaled)
    if np.allclose(grid.spacing_mm, preprocessing.spacing_mm, atol=1e-4):
        return scaled
    return resample(scaled, grid.with_spacing(preprocessing.spacing_mm))


def rescale_intensity(image: sitk.Image, percentiles: tuple[float, float]) -> sitk.Image:
    """Map the two percentiles of the volume's intensities to 0 and 1, and clamp."""
    low, high = np.percentile(sitk.GetArrayViewFromImage(image), percentiles)
    if high <= low:
        low, high = low, low + 1.0
    return sitk.Clamp((image - float(low)) / float(high - low), sitk.sitkFloat32, 0.0, 1.0)


def detail(image: sitk.Image) -> float:
    """How sharp an image is: what a mean over 3³ voxels takes away, as a share of the standard deviation.

    Only voxels above zero count. The public volumes, which are blurred, have 0.02 to 0.03 at 1.5 mm.
    """
    values = sitk.GetArrayFromImage(image).astype(np.float32)
    inside = values > 0
    if not inside.any():
        return 0.0
    # At the border the mean is over the neighbours that there are.
    mean = uniform_filter(values, 3, mode="constant")
    mean /= uniform_filter(np.ones_like(values), 3, mode="constant")
    spread = max(float(values[inside].std()), 1e-4)
    return float(np.abs(values - mean)[inside].mean()) / spread


def resolve_device(device: str) -> str:
    """`auto` becomes cuda where there is one; `InputError` when cuda is asked for and absent."""
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"The device {device!r} is not known; use auto, cpu or cuda.")
    if device == "cpu":
        # Methods without a network then run without torch, which takes seconds to import.
        return device
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not torch.cuda.is_available():
        raise InputError("No CUDA device is available to torch; use --device cpu or auto.")
    return device
