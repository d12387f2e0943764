"""The alignment indicator in words and a colour."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..mrml.case_nodes import CaseNodes

# Told apart without colour by their words; the colours are dark enough to read on a light panel.
_COLORS = {"good": "#2e7d32", "check": "#b26a00", "poor": "#c62828"}


def level_html(text: str, level: str) -> str:
    """A text in the colour of a level."""
    return f'<b style="color:{_COLORS[level]}">{escape(text)}</b>'


def indicator_html(case: CaseNodes) -> str:
    """The headline and the reasons from worst to best, as HTML."""
    from ..mrml.judgement import indicator_of

    indicator = indicator_of(case)
    items = "".join(f"<li>{escape(reason)}</li>" for reason in indicator.reasons)
    return f'{level_html(indicator.headline, indicator.level)}<ul style="margin-left:-20px">{items}</ul>'
