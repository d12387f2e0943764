"""Targets from the MR to the TRUS, for a new result and when another stage is accepted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .case_nodes import CaseNodes

# A target that was moved by less was not meant to be moved.
_NUDGED_MM = 0.01


def carry(case: CaseNodes, sources: Iterable[Any]) -> None:
    """Carry points and segments to where the stage that is shown puts them; `InputError` for empty ones."""
    from .targets_nodes import carry_targets_to_trus

    for source in sources:
        if source is not None:
            carry_targets_to_trus(case, source)


def carry_again(case: CaseNodes) -> None:
    """After another stage was accepted; points that the user moved or added stay where they were put.

    What was carried before is carried again: a list chosen since then waits for the next registration.
    """
    from .targets_nodes import carry_points_again

    if case.targets is not None and case.mr_targets is not None:
        carry_points_again(case, kept=moved_mm(case))
    if case.target_segments is not None:
        carry(case, (case.mr_target_segments,))


def moved_mm(case: CaseNodes) -> dict[str, float]:
    """How far each point that the user moved lies from where it was carried to, by its ID."""
    from .targets_nodes import nudges_mm

    return {point_id: distance for point_id, distance in nudges_mm(case).items() if distance > _NUDGED_MM}
