"""What a run learns from: a data set with its split, simulated pairs, cases simulated while training."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from MRTRUSRegistrationLib.errors import InputError

from .data.case_files import Case, Layout
from .data.cases import find_cases, find_part, find_parts
from .data.fresh import FreshSettings

_KNOWN_DATA = {
    "mrus": {
        "name": "mrus (YipengHu/example-data, branch mrus), training part",
        "licence": "none stated by the publisher",
    },
    "muregpro": {
        "name": "µ-RegPro (Zenodo 10.5281/zenodo.7870104), training part",
        "licence": "CC BY-NC-SA 4.0",
    },
}


@dataclass(frozen=True)
class Sources:
    """Folders of real (`data`) and simulated pairs, and the window of fresh cases; each may be missing.

    `split` is a file; without it the data set's own split counts.
    """

    data: Path | None = None
    layout: Layout = "mrus"
    split: Path | None = None
    simulated: Path | None = None
    fresh: FreshSettings | None = None

    def parts(self) -> tuple[list[list[Case]], list[Case]]:
        """Groups of training cases, and validation cases: each source's own validation part."""
        pairs = [*self._real(), *self._simulated()]
        training, validation = [pair[0] for pair in pairs], [case for pair in pairs for case in pair[1]]
        if not training and self.fresh is None:
            raise InputError("Give --data, --simulated or --fresh: there is nothing to train on.")
        if not validation:
            raise InputError(
                "Give --data or --simulated too: fresh cases alone have no validation part, and a data set "
                "needs at least two cases."
            )
        return training, validation

    def _real(self) -> list[tuple[list[Case], list[Case]]]:
        return [] if self.data is None else [split_cases(self.data, self.layout, self.split)]

    def _simulated(self) -> list[tuple[list[Case], list[Case]]]:
        return [] if self.simulated is None else [split_cases(self.simulated, "muregpro")]

    def describe(self, steps: int) -> list[dict[str, Any]]:
        """What the weights of a run of `steps` were learnt from, for the card."""
        described = [_described(self.data, self.layout, cases) for cases, _ in self._real() if self.data]
        for cases, _ in self._simulated():
            seeds = [_simulation_seed(self.simulated, case.name) for case in cases]
            name = "mrtrus-train simulate, training part"
            described.append({"name": name, "pairs": len(cases), "seeds": seeds, "licence": "Apache-2.0"})
        if self.fresh is not None:
            described.append(_described_fresh(self.fresh, steps))
        return described

    def as_dict(self) -> dict[str, Any]:
        """As JSON types, to go on with later; folders are made absolute."""
        folders = {name: getattr(self, name) for name in ("data", "split", "simulated")}
        kept = {name: None if path is None else str(path.resolve()) for name, path in folders.items()}
        return {**kept, "layout": self.layout, "fresh": None if self.fresh is None else asdict(self.fresh)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Sources:
        folders = {name: content.get(name) for name in ("data", "split", "simulated")}
        paths = {name: None if text is None else Path(text) for name, text in folders.items()}
        fresh = None if content["fresh"] is None else FreshSettings(**content["fresh"])
        return cls(**paths, layout=content["layout"], fresh=fresh)


def split_cases(
    folder: Path, layout: Layout, split_file: Path | None = None
) -> tuple[list[Case], list[Case]]:
    """Training and validation cases: by the split, else the first eighth, eight at most, validates.

    Simulated cases, which have no split, are a patient each, so no patient is split.
    """
    if find_parts(folder, layout, split_file=split_file):
        train = find_part(folder, layout, "train", split_file=split_file)
        return train, find_part(folder, layout, "val", split_file=split_file)
    cases = find_cases(folder, layout)
    held_out = min(8, -(-len(cases) // 8))
    return cases[held_out:], cases[:held_out]


def part_cases(folder: Path, layout: Layout, part: str, split_file: Path | None = None) -> list[Case]:
    """The cases of one part; without any split the validation cases are those that training held out."""
    if part == "val" and not find_parts(folder, layout, split_file=split_file):
        return split_cases(folder, layout)[1]
    return find_part(folder, layout, part, split_file=split_file)


def _described(data: Path, layout: Layout, cases: list[Case]) -> dict[str, Any]:
    own = {"name": f"{data.stem}, training part", "licence": "not stated"}
    known = _KNOWN_DATA.get(layout, own)
    counts = {"pairs": len(cases), "patients": len({case.patient for case in cases})}
    return {"name": known["name"], **counts, "licence": known["licence"]}


def _described_fresh(fresh: FreshSettings, steps: int) -> dict[str, Any]:
    drawn = f"preset {fresh.preset}, {fresh.spacing_mm:g} mm"
    if fresh.random_contrast is not None:
        drawn += f", random contrast {fresh.random_contrast:g}"
    last = fresh.first_seed + (steps - 1) // fresh.steps_a_case + fresh.cases - 1
    return {
        "name": f"mrtrus-train simulate, {drawn}, made while training",
        "pairs": last - fresh.first_seed + 1,
        "seeds": f"{fresh.first_seed} to {last}",
        "licence": "Apache-2.0",
    }


def _simulation_seed(folder: Path | None, name: str) -> int | None:
    """The seed that a simulated case was drawn with, from its parameters."""
    path = Path(folder or ".") / "parameters" / f"{name}.json"
    return int(json.loads(path.read_text(encoding="utf-8"))["seed"]) if path.is_file() else None
