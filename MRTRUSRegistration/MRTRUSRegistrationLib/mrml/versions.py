"""The versions of a case: kept side by side, compared, undone, deleted. Inputs are never deleted."""

from __future__ import annotations

from dataclasses import dataclass

from .case_nodes import DERIVED_ROLES, INPUT_ROLES, RESULT_ROLES, CaseNodes, find_cases
from .hierarchy import folder_of, remove_empty_folder
from .stages import MEASURE_COLUMNS, accepted_stage, release, show_stage, stage_of, stages_of
from .tables import table_measures


@dataclass(frozen=True)
class MeasureComparison:
    """One measure of two versions; `None` where a version does not have it."""

    name: str
    first: float | None
    second: float | None

    @property
    def difference(self) -> float | None:
        """The second less the first."""
        return None if self.first is None or self.second is None else self.second - self.first


def versions(case: CaseNodes) -> list[CaseNodes]:
    """All versions of the case, the oldest first."""
    found = [other for other in find_cases(case.scene) if other.case_id == case.case_id]
    return sorted(found, key=lambda other: other.version)


def active_version(case: CaseNodes) -> CaseNodes:
    """The version that is shown; the newest where none says so."""
    all_versions = versions(case)
    return next((other for other in all_versions if other.active), all_versions[-1])


def activate(case: CaseNodes) -> None:
    """Show this version at its own stage, and hide the others."""
    for other in versions(case):
        if other.node is not case.node:
            deactivate(other)
    case.set_attribute("Active", "1")
    for node in (case.mr_gland, case.trus_gland, case.mr_landmarks, case.trus_landmarks, case.targets):
        if node is not None:
            node.SetDisplayVisibility(True)
    stage = stage_of(case)
    show_stage(case, stage if stage in stages_of(case) else stages_of(case)[-1])


def deactivate(case: CaseNodes) -> None:
    """Hide the nodes of a version, and drop what is made anew when it is shown."""
    case.set_attribute("Active", "0")
    for role in DERIVED_ROLES:
        case.remove(role)
    for node in case.results():
        if hasattr(node, "SetDisplayVisibility"):
            node.SetDisplayVisibility(False)


def undo(case: CaseNodes) -> CaseNodes | None:
    """Go back to the version before the one that is shown; `None`, and no change, if it is the first."""
    older = [other for other in versions(case) if other.version < active_version(case).version]
    if not older:
        return None
    activate(older[-1])
    return older[-1]


def delete_version(case: CaseNodes) -> CaseNodes | None:
    """Remove a version's nodes and show the newest one that is left; `None` if it was the only one.

    With the last version the MR goes back to the transform that it had before it was registered.
    """
    scene, was_active = case.scene, case.active
    rest = [other for other in versions(case) if other.node is not case.node]
    folder = folder_of(case.measures or case.rigid)
    if not rest:
        release(case)
    for role in (*DERIVED_ROLES, *RESULT_ROLES):
        case.remove(role)
    for role in INPUT_ROLES:
        case.set(role, None)
    scene.RemoveNode(case.node)
    remove_empty_folder(scene, folder)
    if not rest:
        return None
    if was_active:
        activate(rest[-1])
    return active_version(rest[-1])


def measures_of(case: CaseNodes) -> dict[str, dict[str, float]]:
    """The measures: by stage (initial, rigid, deformable), then by name; {} if their table was deleted."""
    return {} if case.measures is None else table_measures(case.measures)


def accepted_measures(case: CaseNodes) -> dict[str, float]:
    """The measures of the stage that counts for the case, by name; {} without any."""
    return measures_of(case).get(MEASURE_COLUMNS[accepted_stage(case)], {})


def compare(first: CaseNodes, second: CaseNodes) -> tuple[MeasureComparison, ...]:
    """The measures of two versions, side by side, each at the stage that counts for it."""
    sides = [accepted_measures(case) for case in (first, second)]
    names = dict.fromkeys([*sides[0], *sides[1]])
    return tuple(MeasureComparison(name, sides[0].get(name), sides[1].get(name)) for name in names)
