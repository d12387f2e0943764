"""Why a button cannot act now: one sentence for its tooltip, or "" where it can. No Qt, no scene."""

from __future__ import annotations

from dataclasses import dataclass

from slicer.i18n import tr as _


@dataclass(frozen=True)
class Situation:
    """What the panel knows at one moment."""

    mr: bool = False
    trus: bool = False
    same_volume: bool = False
    running: bool = False
    initial_missing: bool = False
    case: bool = False
    stages: tuple[str, ...] = ()
    older_version: bool = False
    pairs: int = 0
    use_pairs: bool = False
    targets: bool = False
    folder: str = ""
    chosen_files: bool = False
    trus_axes: str = ""
    packages: bool = False
    complete: bool = False
    confidence_runs: int = 0


def why_not_register(now: Situation) -> str:
    if now.running:
        return _("A registration is running; wait for it or cancel it.")
    if not now.mr or not now.trus:
        missing = _("the MR and the TRUS") if not now.mr and not now.trus else None
        missing = missing or (_("the TRUS") if now.mr else _("the MR"))
        return _("Choose {missing} in the section Case first.").format(missing=missing)
    if now.same_volume:
        return _("The same volume is chosen as MR and as TRUS; choose two different ones.")
    if now.initial_missing:
        return _("Choose the initial transform in the section Case, or another start.")
    if now.confidence_runs == 1:
        return _("A spread needs at least two confidence runs; choose 0 or at least 2.")
    return ""


def why_not_register_again(now: Situation) -> str:
    if not now.case:
        return _no_result()
    if now.running:
        return why_not_register(now)
    if now.use_pairs and now.pairs < 3:
        return _("Place at least three pairs of points on MR and TRUS, or do not align by them.")
    return ""


def why_not_show(now: Situation, stage: str) -> str:
    if not now.case:
        return _no_result()
    return "" if stage in now.stages else _("The chosen result has no such stage.")


def why_not_accept(now: Situation) -> str:
    """Why there is nothing to choose between rigid and deformable."""
    if not now.case:
        return _no_result()
    return "" if "deformable" in now.stages else _("The chosen result is rigid.")


def why_not_edit(now: Situation) -> str:
    if now.running:
        return why_not_register(now)
    return "" if now.case else _no_result()


def why_not_undo(now: Situation) -> str:
    if not now.case:
        return _no_result()
    if now.running:
        return why_not_register(now)
    return "" if now.older_version else _("There is no version before this one.")


def why_not_compare(versions: int) -> str:
    """Why there are no two versions of the case to lay side by side."""
    if versions == 0:
        return _no_result()
    return "" if versions > 1 else _("There is only one version; register again to have another.")


def why_not_export(now: Situation) -> str:
    if not now.case:
        return _no_result()
    if not now.folder:
        return _("Choose a folder first.")
    return "" if now.chosen_files else _("Choose at least one kind of file.")


def why_not_turn(now: Situation) -> str:
    """Why the axes of the TRUS cannot be changed."""
    if not now.trus:
        return _("Choose the TRUS first.")
    return "" if valid_axes(now.trus_axes) else _("Give one letter each of L or R, P or A, S or I.")


def valid_axes(code: str) -> bool:
    """Whether a code names each axis of the patient once, such as PRS."""
    pairs = ("LR", "PA", "SI")
    letters = [next((n for n, pair in enumerate(pairs) if letter in pair), None) for letter in code.upper()]
    return sorted(letters, key=str) == [0, 1, 2]


def why_not_install(now: Situation) -> str:
    if now.running:
        return why_not_register(now)
    return _("Everything is installed.") if now.complete else ""


def why_not_remove(now: Situation) -> str:
    if now.running:
        return why_not_register(now)
    return "" if now.packages else _("This module has installed no packages.")


def _no_result() -> str:
    return _("There is no result yet; register first.")
