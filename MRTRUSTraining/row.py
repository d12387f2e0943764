"""Rows: what is trained or compared, one YAML file each, checked into frozen dataclasses.

A row is a line of a table of the two papers, or a bundled model. `rows/` beside this file holds them; a file
of one's own in the same form works as well.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from dataclasses import Field as DataclassField
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.seeds import MOST_SEED

from .data.case_files import Layout
from .registration_settings import RegistrationSettings
from .segmentation_training import SegmentationSettings, network_options

# Those of paper A, paper B's, and "V" for paper A's segmenters, whose figures stand in its text.
TableName = Literal["1", "2", "B", "V"]
TABLE_NAMES: tuple[TableName, ...] = get_args(TableName)
_FOLDER = Path(__file__).resolve().parent / "rows"


@dataclass(frozen=True)
class Published:
    """Figures as published, mean and standard deviation; DSC and accuracy in 0…1."""

    dsc: float | None = None
    dsc_sd: float | None = None
    tre_mm: float | None = None
    tre_sd_mm: float | None = None
    hd95_mm: float | None = None
    accuracy: float | None = None


@dataclass(frozen=True)
class Place:
    """Where a row stands in a table, under which title, and what was published there."""

    table: TableName
    position: int
    title: str
    published: Published = Published()


@dataclass(frozen=True)
class Classical:
    """A method that is not trained: one of the pipeline's own."""

    method: Literal["initial", "centroid", "rigid", "syn"]
    kind: Literal["classical"] = "classical"


Method = Annotated[
    Union[Classical, RegistrationSettings, SegmentationSettings],  # noqa: UP007 (pydantic reads it at run time)
    Field(discriminator="kind"),
]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train, see `trainer.LoopSettings`; `validations` is how often in all."""

    steps: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0)]
    batch: Annotated[int, Field(ge=1)] = 1
    decay: Annotated[float, Field(ge=0)] = 0.9
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.995
    bf16: bool = True
    validations: Annotated[int, Field(ge=1)] = 12


@dataclass(frozen=True)
class DataChoice:
    """The layout of the data that the row is for, and the file in it that splits it by patients.

    Without a file the data set's own split counts. A run may be given others.
    """

    layout: Layout = "mrus"
    split: str | None = None


@dataclass(frozen=True)
class Row:
    """One row; `title` is a model's in its card, `definition` says in words what is done."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    title: str
    definition: str
    method: Method
    places: tuple[Place, ...] = ()
    schedule: Schedule | None = None
    data: DataChoice = DataChoice()
    seed: Annotated[int, Field(ge=0, le=MOST_SEED)] = 2024

    @property
    def is_trained(self) -> bool:
        return not isinstance(self.method, Classical)

    @property
    def pipeline_method(self) -> str:
        """The name that `mrtrus evaluate --methods` knows the row by."""
        return self.method.method if isinstance(self.method, Classical) else self.name

    @property
    def identity(self) -> str:
        """Name and fingerprint of what a checkpoint depends on: not its length, nor what is published.

        Nor what has its default, so that a setting that comes later changes no older row's.
        """
        method, schedule = beyond_defaults(self.method), beyond_defaults(self.schedule) or {}
        kept = {
            **{key: self.as_dict()[key] for key in ("name", "data", "seed")},
            "kind": self.method.kind,
            "method": {key: value for key, value in method.items() if key not in _NOT_LEARNT_WITH},
            "schedule": {key: value for key, value in schedule.items() if key in _LASTING},
        }
        return f"{self.name} {hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]}"

    def as_dict(self) -> dict[str, Any]:
        """The row as plain JSON types."""
        return json.loads(json.dumps(asdict(self)))

    def place(self, table: str) -> Place:
        """Where the row stands in a table that it is in."""
        return next(place for place in self.places if place.table == table)


# What of a schedule a run cannot change when it goes on; it may become longer, and validate more often.
_LASTING = ("learning_rate", "batch", "decay", "ema_decay", "bf16")
# What of a method a checkpoint does not depend on: a card is written later.
_NOT_LEARNT_WITH = ("sharper", "rigid_part", "extend_mm", "eight_bit")
_ADAPTER: TypeAdapter[Row] = TypeAdapter(Row)


def beyond_defaults(value: Any) -> Any:
    """A dataclass as a mapping, and those in it, without the fields that have their default."""
    if not is_dataclass(value) or isinstance(value, type):
        return value
    own = {each.name: getattr(value, each.name) for each in fields(value)}
    default = {each.name: _default_of(each) for each in fields(value)}
    return {name: beyond_defaults(said) for name, said in own.items() if said != default[name]}


def _default_of(each: DataclassField[Any]) -> Any:
    """A field's default; MISSING where it has none."""
    return each.default if each.default_factory is MISSING else each.default_factory()


def read_row(path: Path) -> Row:
    """The row of a YAML file; `InputError` names the file and the wrong key, and the nearest known."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"The row {path} cannot be read ({error.strerror}).") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"The row {path} is not valid YAML ({' '.join(str(error).split())}).") from error
    return row_from(content, str(path))


def row_from(content: Any, source: str) -> Row:
    """The row of a mapping as YAML or JSON gives it; `InputError` names `source`."""
    try:
        # Strict JSON still takes a list for a tuple and a whole number for a real one.
        row = _ADAPTER.validate_json(json.dumps(content))
    except ValidationError as error:
        raise InputError(f"{source}: {_first_problem(error, content)}.") from error
    except TypeError as error:
        raise InputError(f"{source} holds something other than text, numbers and lists ({error}).") from error
    if row.is_trained and row.schedule is None:
        raise InputError(f"{source}: the key schedule is missing; say steps and learning_rate.")
    _check_loss(row, source)
    _check_network(row, source)
    return row


def _check_loss(row: Row, source: str) -> None:
    """Weights that no loss has, a validation of nothing, what the official code's Dice cannot be told."""
    if not isinstance(row.method, RegistrationSettings):
        return
    for name, value in asdict(row.method.loss).items():
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not (math.isfinite(number) and number >= 0):
                raise InputError(f"{source}: method.loss.{name} cannot be {number:g}; give 0 or more.")
    if not (math.isfinite(row.method.margin_mm) and row.method.margin_mm >= 0):
        raise InputError(f"{source}: method.margin_mm cannot be {row.method.margin_mm:g}; give 0 or more.")
    if row.method.loss.gland_decays and row.method.loss.structures != "all":
        raise InputError(f"{source}: method.loss.gland_decays is for structures: all.")
    if row.method.validation_draws < 1:
        raise InputError(f"{source}: method.validation_draws must be 1 or more.")
    _check_unused(row.method, source)
    if row.method.loss.dice != "classes":
        return
    if any(row.method.loss.dice_scales_mm):
        raise InputError(f"{source}: method.loss.dice_scales_mm is not for dice: classes; leave it out.")
    # The gland's weight falls to nothing, so that the gland alone would soon teach nothing.
    if row.method.loss.structures != "all":
        named = row.method.loss.structures
        raise InputError(f"{source}: method.loss.structures cannot be {named} with dice: classes; use all.")


def _check_unused(method: RegistrationSettings, source: str) -> None:
    """What is set and would do nothing."""
    if method.margin_mm > 0 and method.inputs != "regions":
        raise InputError(f"{source}: method.margin_mm is for inputs: regions; leave it out.")
    if method.loss.dice == "weighted":
        return
    for name, value, default in (
        ("gland_decays", method.loss.gland_decays, False),
        ("dice_squared", method.loss.dice_squared, True),
    ):
        if value != default:
            raise InputError(f"{source}: method.loss.{name} is for dice: weighted; leave it out.")


def _check_network(row: Row, source: str) -> None:
    """The network's name and options, before a run reads its data."""
    import torch

    from .networks.named import build_registration_network, build_segmenter

    if isinstance(row.method, Classical):
        return
    build = build_segmenter if isinstance(row.method, SegmentationSettings) else build_registration_network
    try:
        # Shapes without memory.
        with torch.device("meta"):
            build(row.method.network, **row.method.options)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error


_LONGEST_SHOWN = 60


def check_shapes(row: Row) -> None:
    """`InputError` unless the row's network takes its inputs in a box of its size."""
    import torch

    method = row.method
    if isinstance(method, Classical):
        return
    try:
        # Shapes without memory.
        with torch.device("meta"), torch.no_grad():
            _pass_through(method)
    except TypeError as error:
        raise InputError(f"{row.name}: the network {method.network} does not take these inputs.") from error
    except RuntimeError as error:
        name = "training_vox" if isinstance(method, SegmentationSettings) else "grid_vox"
        raise InputError(
            f"{row.name}: the network {method.network} does not work on a {name} of "
            f"{list(getattr(method, name))}; give multiples of 16."
        ) from error


def _pass_through(method: RegistrationSettings | SegmentationSettings) -> None:
    """Build the network and show it empty inputs of the method's size."""
    import torch

    from .networks.named import build_registration_network, build_segmenter

    if isinstance(method, SegmentationSettings):
        network = build_segmenter(method.network, **network_options(method))
        network(torch.zeros(1, 1, *method.training_vox[::-1]))
        return
    box = method.grid_vox[::-1]
    images = [torch.zeros(1, method.options.get("channels", 1), *box)] * 2
    masks = [torch.zeros(1, 1, *box)] * 2 if method.inputs == "images+masks" else []
    build_registration_network(method.network, **method.options)(*images, *masks)


# --- one sentence about what is wrong --------------------------------------------------------------------


def _first_problem(error: ValidationError, content: Any) -> str:
    """An unknown key is named before what its absence elsewhere has caused."""
    problems = error.errors()
    unknown = [problem for problem in problems if problem["type"] == "unexpected_keyword_argument"]
    problem = (unknown or problems)[0]
    place = _keys(problem["loc"])
    key = ".".join(place) or "the file"
    if problem["type"] == "unexpected_keyword_argument":
        return f"the key {key} is not known{_nearest(place, content)}"
    if problem["type"] in ("missing", "missing_argument"):
        return f"the key {key} is missing"
    if problem["type"] == "union_tag_not_found":
        return f"the key {key}.kind is missing; use classical, registration or segmentation"
    reason = problem["msg"][0].lower() + problem["msg"][1:]
    given = json.dumps(problem["input"], ensure_ascii=False)
    shown = given if len(given) <= _LONGEST_SHOWN else f"{given[:_LONGEST_SHOWN]}…"
    return f"{key} cannot be {shown} ({reason})"


def _keys(location: Sequence[int | str]) -> list[str]:
    """The keys of a place in the file; the name of a kind of method, which pydantic puts in, is none."""
    kept = [str(part) for part in location]
    if len(kept) > 1 and kept[0] == "method" and kept[1] in _KINDS:
        del kept[1]
    return kept


def _nearest(place: Sequence[str], content: Any) -> str:
    known = _known_keys(place[:-1], content)
    close = get_close_matches(place[-1], known, n=1, cutoff=0.5)
    return f"; do you mean {close[0]}?".rstrip("?") if close else f"; known are {', '.join(known)}"


def _known_keys(place: Sequence[str], content: Any) -> list[str]:
    """The keys that the mapping at a place may have."""
    kind: Any = Row
    for part in place:
        if part.isdigit():
            continue
        if part == "method":
            kind = _KINDS[content["method"]["kind"]]
            continue
        kind = _dataclass_of(_hints(kind)[part])
    return [field.name for field in fields(kind)]


def _dataclass_of(annotation: Any) -> Any:
    """The dataclass in an annotation such as `tuple[Place, ...]` or `Schedule | None`."""
    if is_dataclass(annotation):
        return annotation
    inner = [_dataclass_of(argument) for argument in get_args(annotation)]
    return next((each for each in inner if each is not None), None)


def _hints(kind: Any) -> Mapping[str, Any]:
    from typing import get_type_hints

    return get_type_hints(kind)


_KINDS: Mapping[str, type] = {
    "classical": Classical,
    "registration": RegistrationSettings,
    "segmentation": SegmentationSettings,
}


# --- the rows that come with the package -----------------------------------------------------------------


@lru_cache(maxsize=1)
def all_rows() -> Mapping[str, Row]:
    """Every row of the package by its name, in the order of the tables."""
    rows = [read_row(path) for path in sorted(_FOLDER.glob("*.yaml"))]
    return {row.name: row for row in sorted(rows, key=_order)}


def _order(row: Row) -> tuple[str, int, str]:
    return (row.places[0].table, row.places[0].position, row.name) if row.places else ("~", 0, row.name)


def find_row(name: str) -> Row:
    """The row of that name, or of a YAML file at that path; `InputError` where there is neither."""
    if name in all_rows():
        return all_rows()[name]
    if name.endswith((".yaml", ".yml")):
        return read_row(Path(name))
    close = get_close_matches(name, all_rows(), n=1, cutoff=0.4)
    nearest = f"do you mean {close[0]}" if close else "`mrtrus-train rows` lists them"
    raise InputError(f"There is no row {name!r}; {nearest}, or give the path of a YAML file.")


def rows_of_table(table: str) -> list[Row]:
    """The rows of a table in its order; `InputError` for a table that is not known."""
    if table not in TABLE_NAMES:
        raise InputError(f"There is no table {table!r}; use {', '.join(TABLE_NAMES)}.")
    rows = [row for row in all_rows().values() if any(place.table == table for place in row.places)]
    return sorted(rows, key=lambda row: row.place(table).position)
