"""The choices of the panel. Those of the parameter node are stored by name and shown by their labels."""

from __future__ import annotations

from enum import Enum

from slicer.i18n import tr as _


class Initial(Enum):
    """Where the registration starts from."""

    GLAND = "gland"
    WORLD = "world"
    TRANSFORM = "transform"

    def label(self) -> str:
        return {
            Initial.GLAND: _("the glands, brought together"),
            Initial.WORLD: _("the images as they lie"),
            Initial.TRANSFORM: _("the initial transform"),
        }[self]


class Device(Enum):
    """Where the networks run."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"

    def label(self) -> str:
        return {
            Device.AUTO: _("automatic"),
            Device.CPU: _("processor"),
            Device.CUDA: _("CUDA graphics card"),
        }[self]


class Accepted(Enum):
    """Which result counts for a case."""

    DEFORMABLE = "deformable"
    RIGID = "rigid"

    def label(self) -> str:
        return {Accepted.DEFORMABLE: _("deformable"), Accepted.RIGID: _("rigid")}[self]


def comparison_labels() -> dict[str, str]:
    """The modes of a review with what the user reads."""
    return {
        "blend": _("opacity"),
        "flicker": _("flicker"),
        "rock": _("rock"),
        "checkerboard": _("checkerboard"),
        "split": _("split view"),
    }


def axis_labels() -> dict[str, str]:
    """The patient axes along which a view is split."""
    return {
        "left-right": _("left – right"),
        "posterior-anterior": _("back – front"),
        "inferior-superior": _("foot – head"),
    }


def deformation_labels() -> dict[tuple[str, str], str]:
    """What of the deformation is shown: the overlay and the drawing of a review, and what the user reads."""
    return {
        ("none", "none"): _("not shown"),
        ("none", "grid"): _("grid"),
        ("none", "arrows"): _("arrows"),
        ("displacement", "none"): _("length of the displacement (mm)"),
        ("jacobian", "none"): _("change of volume (Jacobian)"),
        ("confidence", "none"): _("confidence: spread (mm)"),
    }
