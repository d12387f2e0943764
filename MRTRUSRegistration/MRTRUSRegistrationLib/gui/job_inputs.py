"""From the parameters of the panel to the nodes of a run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..mrml.job_inputs import Inputs, inputs_of_case

if TYPE_CHECKING:
    from ..mrml.case_nodes import CaseNodes


def chosen_inputs(parameters: Any) -> Inputs:
    """What is chosen in the section Case."""
    return Inputs(
        mr=parameters.mrVolume,
        trus=parameters.trusVolume,
        mr_gland=parameters.mrGland,
        trus_gland=parameters.trusGland,
        mr_landmarks=parameters.mrLandmarks,
        trus_landmarks=parameters.trusLandmarks,
        targets=parameters.targets,
        lesions=parameters.lesions,
        initial=parameters.initial.value,
        initial_transform=parameters.initialTransform,
    )


def inputs_again(parameters: Any, case: CaseNodes) -> Inputs:
    """The same images with the case's own glands, corrected or not, and pairs if asked for."""
    pairs = (parameters.pairMr, parameters.pairTrus) if parameters.usePairs else (None, None)
    return replace(
        inputs_of_case(case),
        targets=parameters.targets,
        lesions=parameters.lesions,
        initial=parameters.initial.value,
        initial_transform=parameters.initialTransform,
        pair_mr=pairs[0],
        pair_trus=pairs[1],
    )
