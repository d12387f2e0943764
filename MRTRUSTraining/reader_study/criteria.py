"""What readers score by: T2 criteria by zone in our own words, and the anchors of the confidence scale.

The levels follow PI-RADS v2.1 (American College of Radiology 2019; Turkbey et al. 2019, European Urology
76:340), T2-weighted part only. The paper's own appendix is not public. It names the ends of the confidence
scale; the levels in between are ours.
"""

from __future__ import annotations

SOURCE = (
    "After PI-RADS v2.1, T2-weighted part only (American College of Radiology 2019; Turkbey et al., Eur Urol "
    "2019;76:340–351), in our own words. The full PI-RADS assessment also needs diffusion and contrast."
)

ZONES = {"pz": "Peripheral zone", "tz": "Transition zone"}

T2_CRITERIA: dict[str, dict[int, str]] = {
    "pz": {
        1: "Bright throughout: normal.",
        2: "Dark lines or wedges, or a faint diffuse darkening without a clear edge.",
        3: "Uneven signal, or a roundish moderately dark area without a clear edge; also what fits no "
        "other level.",
        4: "A clearly outlined, evenly and moderately dark focus or mass, inside the prostate and below "
        "1.5 cm.",
        5: "As 4, but 1.5 cm or more across, or definitely growing out of the prostate.",
    },
    "tz": {
        1: "Normal for this zone, or a round nodule with a complete capsule.",
        2: "A nodule with most of a capsule, or an even, clearly outlined nodule without one, or an even, "
        "slightly dark area between nodules.",
        3: "Uneven signal with blurred edges; also what fits no other level.",
        4: "A lens-shaped or unsharply bounded, evenly and moderately dark area below 1.5 cm.",
        5: "As 4, but 1.5 cm or more across, or definitely growing out of the prostate.",
    },
}

SCORE_MEANINGS = {
    1: "Significant cancer very unlikely",
    2: "Unlikely",
    3: "Cannot say",
    4: "Likely",
    5: "Very likely",
}

CONFIDENCE_ANCHORS = {
    1: "Highly uncertain",
    2: "Uncertain",
    3: "Rather uncertain",
    4: "Neither",
    5: "Rather certain",
    6: "Certain",
    7: "Highly certain",
}

SIDE_LABELS = {
    "left": "Left",
    "right": "Right",
    "bilateral": "Both sides",
    "none": "No lesion",
}
