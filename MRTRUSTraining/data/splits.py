"""Splits of a data set into parts by patient.

A split is a JSON object whose `train`, `val` and `test` are lists of case names and whose `patients`, a list
of lists, groups the cases of one patient.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MRTRUSRegistrationLib.errors import InputError

from .case_files import Case

PARTS = ("train", "val", "test")
SPLIT_NAME = "splits.json"

Parts = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Leak:
    """A patient in two parts of a split, each with the case that is there."""

    patient: str
    parts: tuple[str, str]
    cases: tuple[str, str]

    def __str__(self) -> str:
        first, second = (f"{part} (case {name})" for part, name in zip(self.parts, self.cases, strict=True))
        return f"patient {self.patient} is in {first} and in {second}"


def read_case_names(path: Path, part: str | None = None) -> list[str]:
    """Case names from a JSON file: a list, or an object of lists of which `part` names one."""
    content = _content(path)
    if isinstance(content, dict):
        if part is None and "val" in content:
            part = "val"
        content = content.get(part or "cases")
    if not isinstance(content, list) or not content or not all(isinstance(n, str) for n in content):
        raise InputError(f"{path} holds no list of case names{f' under {part!r}' if part else ''}.")
    if twice := [name for n, name in enumerate(content) if name in content[:n]]:
        # It would count as another pair of another patient.
        raise InputError(f"{path} names the case {twice[0]} twice; name each once.")
    return content


def read_patients(path: Path) -> dict[str, str]:
    """Patient of each case, from the groups in a split file; empty where there is no file."""
    if not path.is_file():
        return {}
    content = _content(path)
    groups = content.get("patients", []) if isinstance(content, dict) else []
    if not isinstance(groups, list) or not all(_is_group(group) for group in groups):
        raise InputError(
            f"{path} is not a split: give a JSON object whose 'patients' is a list of lists of case names."
        )
    return {name: group[0] for group in groups for name in group}


def _is_group(group: object) -> bool:
    return isinstance(group, list) and all(isinstance(name, str) for name in group)


def read_parts(path: Path) -> Parts:
    """The parts of a split file that are there, each with its case names."""
    content = _content(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a split: give a JSON object with the lists {', '.join(PARTS)}.")
    return {part: tuple(read_case_names(path, part)) for part in PARTS if content.get(part)}


def own_parts(data: Path, cases: Sequence[Case]) -> Parts:
    """The split that a data set brings: its splits.json, else the part that each case says; may be empty."""
    path = data / SPLIT_NAME
    written = read_parts(path) if path.is_file() else {}
    if written:
        return written
    named = {part: tuple(case.name for case in cases if case.part == part) for part in PARTS}
    return {part: names for part, names in named.items() if names}


def leaks(parts: Parts, patients: Mapping[str, str]) -> list[Leak]:
    """Every patient with cases in two parts, once; `patients` gives the patient of a case."""
    seen: dict[str, tuple[str, str]] = {}
    found: dict[str, Leak] = {}
    for part, names in parts.items():
        for name in names:
            patient = patients.get(name, name)
            first_part, first_name = seen.setdefault(patient, (part, name))
            if first_part != part and patient not in found:
                found[patient] = Leak(patient, (first_part, part), (first_name, name))
    return list(found.values())


def check_leaks(parts: Parts, patients: Mapping[str, str], source: Path) -> None:
    """`InputError` where a patient is on two sides of the split of `source`."""
    found = leaks(parts, patients)
    if found:
        raise InputError(
            f"The split of {source} leaks: {found[0]}; put all cases of a patient into one part."
        )


def _content(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"The case list {path} does not exist.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); correct it.") from error
