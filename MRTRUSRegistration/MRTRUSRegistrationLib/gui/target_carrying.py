"""Targets from the MR to the TRUS, for a new result and when another stage is accepted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..mrml.case_nodes import CaseNodes

# A target that was moved by less was not meant to be moved.
_NUDGED_MM = 0.01


def carry(case: CaseNodes, sources: Iterable[Any]) -> None:
    """Carry points and segments to where the stage that is shown puts them; `InputError` for empty ones."""
    from ..mrml.targets_nodes import carry_targets_to_trus

    for source in sources:
        if source is not None:
            carry_targets_to_trus(case, source)


def carry_again(case: CaseNodes, parameters: Any) -> None:
    """After another stage was accepted; points that the user moved stay where they were put."""
    from ..mrml.targets_nodes import nudges_mm

    moved = any(distance > _NUDGED_MM for distance in nudges_mm(case))
    if case.targets is not None and not moved:
        carry(case, (parameters.targets,))
    if case.target_segments is not None:
        carry(case, (parameters.lesions,))
