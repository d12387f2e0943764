"""A registration as a job: what the command line, the panel, a batch and the browser hand to the worker.

Only the standard library is imported here, so that an application can make and follow jobs without torch,
ANTs or SimpleITK.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .errors import InputError
from .progress import CancelToken, ProgressCallback

if TYPE_CHECKING:
    from .results import Registration

FORMAT_VERSION = 1
# What JSON may hold for each type of field, and how a message calls it.
_JSON_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "Path": ((str,), "a path"),
    "str": ((str,), "a text"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "bool": ((bool,), "true or false"),
}


@dataclass(frozen=True)
class Job:
    """One registration: files in, folder out, settings.

    `initial` is gland, world or the path of a transform; `rigid` is a transform that takes the place of the
    rigid alignment. Both map TRUS points to MR points. `targets` are points, a segmentation or a label map on
    the MR; `lesions` are further ones, for a case that has both points and segments. `confidence` is the
    number of perturbations for the confidence map, 0 for none; only a network has one. `landmark_frame` is
    that of landmarks and targets in CSV files that do not state theirs. Where `rigid_metric` and
    `max_rotation_deg` are None, the defaults of the rigid alignment hold. `rigid_points` are the points on
    the TRUS that `rigid` was fitted to; a result whose points lie close together gets a warning. `case_name`
    is what report and scene call the case, by default the output folder's name.
    """

    mr: Path
    trus: Path
    output: Path
    method: str = "cmsa"
    models: Path | None = None
    device: str = "auto"
    seed: int = 0
    initial: str = "gland"
    rigid: Path | None = None
    rigid_points: Path | None = None
    rigid_metric: str | None = None
    max_rotation_deg: float | None = None
    mr_mask: Path | None = None
    trus_mask: Path | None = None
    mr_landmarks: Path | None = None
    trus_landmarks: Path | None = None
    landmark_frame: str | None = None
    mr_orientation: str | None = None
    trus_orientation: str | None = None
    targets: Path | None = None
    lesions: Path | None = None
    confidence: int = 0
    case_name: str = ""
    overwrite: bool = False

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT_VERSION, **_plain(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The job of a JSON object; `InputError` names what is missing, unknown or of the wrong type."""
        content = _object(text)
        known = {field.name: str(field.type) for field in fields(cls)}
        unknown = sorted(set(content).difference(known))
        if unknown:
            raise InputError(f"The job has a field {unknown[0]!r} that is not known; remove it.")
        missing = [name for name in ("mr", "trus", "output") if content.get(name) is None]
        if missing:
            raise InputError(f"The job has no {missing[0]}; give its path.")
        return cls(**{name: _typed(name, value, known[name]) for name, value in content.items()})

    @classmethod
    def read(cls, path: Path) -> Job:
        """The job in a file; `InputError` where it cannot be read."""
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"The job {path} cannot be read ({error}); write it again.") from error

    @property
    def input_files(self) -> dict[str, Path]:
        """The files that are read, by field; not those of the models."""
        values = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if str(field.type).startswith("Path") and field.name not in ("output", "models")
        }
        if self.initial not in ("gland", "world"):
            values["initial"] = Path(self.initial)
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Event:
    """What a worker says: how far a stage is, that the result is complete, or why there is none.

    `kind` of an error is input, failed or cancelled; `output` is the result's folder.
    """

    type: Literal["progress", "done", "error"]
    stage: str = ""
    fraction: float = 0.0
    message: str = ""
    output: str = ""
    kind: str = ""

    def to_line(self) -> str:
        """One line of ASCII, with what this type of event has."""
        names = {
            "progress": ("stage", "fraction", "message"),
            "done": ("output",),
            "error": ("kind", "message"),
        }[self.type]
        return json.dumps({"type": self.type, **{name: getattr(self, name) for name in names}}) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Event | None:
        """The event of a line; None for anything else."""
        try:
            content = json.loads(line)
            return cls(**content) if content["type"] in ("progress", "done", "error") else None
        except (ValueError, KeyError, TypeError):
            return None


def run_job(
    job: Job, *, progress: ProgressCallback | None = None, cancel: CancelToken | None = None
) -> Registration:
    """Read and check the files of a job, register them and write the result folder.

    Raises `InputError` for what cannot be used, `RegistrationError` when a stage fails and `Cancelled` when
    `cancel` was set; then the output folder is as it was.
    """
    from .job_run import run

    return run(job, progress=progress, cancel=cancel)


def _plain(job: Job) -> dict[str, Any]:
    values = {field.name: getattr(job, field.name) for field in fields(job)}
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def _object(text: str) -> dict[str, Any]:
    """The fields of a job's JSON, without the format, which is checked."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InputError(f"The job is not valid JSON ({error}); write it again.") from error
    if not isinstance(content, dict):
        raise InputError("The job is not a JSON object; write it again.")
    version = content.pop("format", None)
    if version != FORMAT_VERSION:
        raise InputError(
            f"The job has format {version!r}, but this version reads format {FORMAT_VERSION}; use the same "
            "version on both sides."
        )
    return content


def _typed(name: str, value: Any, annotation: str) -> Any:
    kind, *optional = annotation.split(" | ")
    if value is None and optional:
        return None
    types, wanted = _JSON_TYPES[kind]
    if not isinstance(value, types) or (isinstance(value, bool) and kind != "bool"):
        raise InputError(f"The job has {name} = {value!r}, which is not {wanted}; correct it.")
    return Path(str(value)) if kind == "Path" else value
