"""What `mrtrus view` was asked to open, checked before anything is started."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from MRTRUSRegistrationLib.errors import InputError

Kind = Literal["nothing", "result", "scene", "pair"]


@dataclass(frozen=True)
class Opening:
    """What every visitor sees first: `paths` is a result folder, a scene, or MR and TRUS.

    `served` is the folder in which visitors may choose files; `None` where there is none.
    """

    kind: Kind = "nothing"
    paths: tuple[str, ...] = ()
    served: str | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Opening:
        content = json.loads(text)
        return cls(content["kind"], tuple(content["paths"]), content["served"])


def opening_of(paths: Sequence[Path]) -> Opening:
    """What the arguments of the command mean; `InputError` where they mean nothing."""
    missing = next((path for path in paths if not path.exists()), None)
    if missing is not None:
        raise InputError(f"{missing} does not exist: give a result folder, a scene (.mrb), or MR and TRUS.")
    absolute = tuple(str(path.resolve()) for path in paths)
    if len(paths) == 2:
        return Opening("pair", absolute)
    if len(paths) > 2:
        raise InputError(f"{len(paths)} files were given: give a result folder, a scene, or MR and TRUS.")
    return _of_one(paths[0], absolute[0]) if paths else Opening()


def _of_one(path: Path, absolute: str) -> Opening:
    if path.suffix.lower() == ".mrb":
        return Opening("scene", (absolute,))
    if not path.is_dir():
        raise InputError(f"{path} alone cannot be shown: give MR and TRUS, a scene (.mrb) or a folder.")
    if (path / "result.json").is_file():
        return Opening("result", (absolute,))
    return Opening(served=absolute)
