"""Landmarks that one modality of a case lacks: they cannot be compared, and are left out aloud."""

from __future__ import annotations

from collections.abc import Collection, Sequence

# As the library calls a landmark file's label without a partner.
UNPAIRED = "landmark_unpaired"


def unpaired_sentence(case: str, channel: int, *, in_mr: bool) -> str:
    """What is said of the landmark of one label channel."""
    return f"Landmark {channel} of case {case} is in {'MR' if in_mr else 'TRUS'} only and is left out."


def unpaired_in_all(of_cases: Collection[Sequence[str]]) -> str | None:
    """One sentence for a data set, of the sentences of each case; None where no landmark is left out."""
    sentences = [sentence for each in of_cases for sentence in each]
    if len(sentences) < 2:
        return sentences[0] if sentences else None
    cases = sum(bool(each) for each in of_cases)
    where = "1 case" if cases == 1 else f"{cases} cases"
    return (
        f"{len(sentences)} landmarks of {where} are in one modality only and are left out; "
        "`mrtrus-train check` names them."
    )
