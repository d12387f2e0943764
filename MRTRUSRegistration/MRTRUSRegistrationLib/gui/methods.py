"""The methods to choose from: the built-in ones and the installed registration models, by their cards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slicer.i18n import tr as _


@dataclass(frozen=True)
class Method:
    """A method as the worker knows it, and as the user reads it."""

    name: str
    label: str
    description: str


def methods(folder: Path | None) -> tuple[Method, ...]:
    """Models first, for the default is one of them; a folder that is missing or unreadable adds none."""
    return (*_models(folder), *_built_in())


def _models(folder: Path | None) -> tuple[Method, ...]:
    from ..models import usable_models

    return tuple(
        Method(model.card.name, f"{model.card.name}: {model.card.title}", _figures(model.card.figures))
        for model in usable_models(folder)
        if model.card.task == "registration"
    )


def _figures(figures: tuple[dict[str, object], ...]) -> str:
    """The last figure of a card in a line: the one closest to how the model is used."""
    if not figures:
        return _("Deformable, by a network; its card holds no figures.")
    figure = figures[-1]
    text = _("Deformable, by a network. On {split}: ").format(split=figure.get("split", "?"))
    parts = []
    if "dsc" in figure:
        parts.append(_("gland overlap {value}").format(value=_rounded(figure["dsc"])))
    if "tre_rms_mm" in figure:
        parts.append(_("landmark error {value} mm").format(value=_rounded(figure["tre_rms_mm"])))
    return text + ", ".join(parts) + "."


def _rounded(value: object) -> str:
    """A figure of a card, which any file may be, with two digits."""
    return f"{value:.2f}" if isinstance(value, (int, float)) else str(value)


def _built_in() -> tuple[Method, ...]:
    return (
        Method(
            "syn",
            _("syn: ANTs on the outlines"),
            _("Deformable; follows the outlines, knows nothing inside."),
        ),
        Method("rigid", _("rigid"), _("Turns and shifts the MR so that the glands fit.")),
        Method("centroid", _("centroid"), _("Only shifts the MR so that the glands' centres meet.")),
        Method("initial", _("initial"), _("Leaves the MR where it starts; to compare with.")),
    )
