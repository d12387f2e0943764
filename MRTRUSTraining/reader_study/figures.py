"""The figures: ROC curves with their bands, and how confidence is spread."""

from __future__ import annotations

import io
import textwrap
import unicodedata
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .accuracy import area_table
from .ratings import SCALES
from .roc import RocCurve
from .study import Sitting, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that the colour-blind tell apart (Okabe and Ito), with a line style each for print.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_STYLES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (1, 1)))
# From uncertain (orange) over grey to certain (blue).
_LIKERT = ("#b35806", "#e08214", "#fdc77d", "#d9d9d9", "#abd0e6", "#5aa2cf", "#08519c")
_DARK = (0, 6)
_FEW_PERCENT = 4
_PANEL_INCHES = 4.2
_LINE_INCHES = 0.19
_LINE_LETTERS = 38
_NAME_LINES = 4
# Names in Chinese, Japanese or Korean need one of these, which systems have and matplotlib has not.
_OTHER_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei"),
    *("WenQuanYi Micro Hei", "Droid Sans Fallback", "Microsoft YaHei", "SimHei", "PingFang SC"),
    *("Hiragino Sans", "Yu Gothic", "Malgun Gothic", "Arial Unicode MS"),
)


@contextmanager
def _style() -> Iterator[None]:
    """Names are drawn as they are: a `$` begins no formula, and letters come from any font that has them."""
    import matplotlib
    from matplotlib.font_manager import get_font_names

    known = {*get_font_names()}
    families = ["sans-serif", *(name for name in _OTHER_FONTS if name in known)]
    with (
        matplotlib.rc_context(
            {"text.parse_math": False, "font.family": families, "svg.hashsalt": "reader-study"}
        ),
        warnings.catch_warnings(),
    ):
        # The name is a row of boxes in the figure then, and right in the tables.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


def _wrapped(name: str) -> str:
    wide = any(unicodedata.east_asian_width(letter) in "WF" for letter in name)
    letters = _LINE_LETTERS // 2 if wide else _LINE_LETTERS
    return "\n".join(textwrap.wrap(name, letters, max_lines=_NAME_LINES, placeholder=" …"))


@_style()
def roc_figure(study: Study, curves: Mapping[Sitting, RocCurve]) -> Figure:
    """One panel a reader, one curve a condition, each with its 95 % band and its area in the legend below."""
    from matplotlib.figure import Figure

    areas = {(row["reader"], row["condition"]): row["auc"] for row in area_table(study).rows}
    labels = {one: f"{_wrapped(one.condition)}, AUC {areas[one.reader, one.condition]:.3f}" for one in curves}
    shown = {reader: [one for one in curves if one.reader == reader] for reader in study.readers}
    shown = {reader: sittings for reader, sittings in shown.items() if sittings}
    conditions = list(dict.fromkeys(sitting.condition for sitting in curves))
    # With room for the names, so that panels are as large as they are with short ones.
    lines = max(_lines(_wrapped(reader)) for reader in shown)
    lines += max(sum(_lines(labels[one]) for one in sittings) for sittings in shown.values())
    height = _PANEL_INCHES + _LINE_INCHES * lines
    figure = Figure(figsize=(_PANEL_INCHES * len(shown), height), layout="constrained")
    axes = figure.subplots(1, len(shown), squeeze=False)[0]
    for ax, (reader, sittings) in zip(axes, shown.items(), strict=True):
        for sitting in sittings:
            _draw_curve(ax, curves[sitting], conditions.index(sitting.condition))
        _finish_roc(ax, reader, [labels[sitting] for sitting in sittings])
        _mark(ax, study)
    return figure


def _lines(text: str) -> int:
    return text.count("\n") + 1


def _draw_curve(ax: Axes, curve: RocCurve, number: int) -> None:
    colour = _COLOURS[number % len(_COLOURS)]
    ax.fill_between(curve.band_fpr, curve.band_low, curve.band_high, color=colour, alpha=0.15, linewidth=0)
    style = _STYLES[number % len(_STYLES)]
    ax.plot(
        curve.fpr,
        curve.tpr,
        color=colour,
        linestyle=style,
        linewidth=2,
        marker="o",
        markersize=4,
    )


def _finish_roc(ax: Axes, reader: str, labels: list[str]) -> None:
    # Given outright, because matplotlib leaves labels that begin with _ out of its own choice.
    ax.legend(
        ax.get_lines(), labels, loc="upper center", bbox_to_anchor=(0.5, -0.13), fontsize=9, frameon=False
    )
    ax.plot([0, 1], [0, 1], color="#888888", linewidth=0.8)
    ax.set_title(_wrapped(reader))
    ax.set(xlabel="1 − specificity", ylabel="Sensitivity", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    ax.set_aspect("equal")
    ax.spines[["top", "right"]].set_visible(False)


@_style()
def confidence_figure(study: Study) -> Figure:
    """Shares of the seven levels as stacked bars, one bar a reader and condition."""
    from matplotlib.figure import Figure

    sittings = study.sittings("confidence")
    names = [_wrapped(str(sitting)) for sitting in sittings]
    height = max(0.5, _LINE_INCHES * max(map(_lines, names)))
    figure = Figure(figsize=(9, 1.3 + height * len(sittings)), layout="constrained")
    ax = figure.subplots()
    for row, sitting in enumerate(sittings):
        _draw_bar(ax, row, list(study.numbers("confidence", sitting).values()))
    ax.set_yticks(range(len(sittings)), names)
    ax.invert_yaxis()
    ax.set(xlim=(0, 100), xlabel="Cases, %")
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    _level_legend(figure)
    _mark(ax, study)
    return figure


def _draw_bar(ax: Axes, row: int, values: list[int]) -> None:
    start = 0.0
    for place, level in enumerate(SCALES["confidence"]):
        width = 100 * values.count(level) / len(values)
        ax.barh(row, width, left=start, height=0.72, color=_LIKERT[place], edgecolor="white", linewidth=0.8)
        if width >= _FEW_PERCENT:
            ink = "white" if place in _DARK else "black"
            ax.text(start + width / 2, row, str(values.count(level)), ha="center", va="center", color=ink)
        start += width


def _level_legend(figure: Figure) -> None:
    from matplotlib.patches import Patch

    ends = {1: "1 highly uncertain", 7: "7 highly certain"}
    patches = [
        Patch(color=colour, label=ends.get(level, str(level)))
        for level, colour in zip(SCALES["confidence"], _LIKERT, strict=True)
    ]
    figure.legend(handles=patches, ncols=7, loc="outside upper center", frameon=False, fontsize=9)


def _mark(ax: Axes, study: Study) -> None:
    """A figure of a made-up study says so wherever it is pasted."""
    if study.made_up:
        text = ax.text(0.5, 0.42, "MADE-UP DATA", fontsize=24, ha="center", va="center")
        text.set(transform=ax.transAxes, color="#a8201a", alpha=0.22, zorder=5)


@_style()
def rendered(figure: Figure, kind: str) -> bytes:
    """The figure as `svg` or `png`; the same figure gives the same bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
    return stream.getvalue()
