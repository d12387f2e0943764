"""The figures: ROC curves with their bands, and how confidence is spread."""

from __future__ import annotations

import io
from collections.abc import Mapping
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


def roc_figure(study: Study, curves: Mapping[Sitting, RocCurve]) -> Figure:
    """One panel a reader, one curve a condition, each with its 95 % band and its area in the legend."""
    from matplotlib.figure import Figure

    readers = [reader for reader in study.readers if any(one.reader == reader for one in curves)]
    figure = Figure(figsize=(_PANEL_INCHES * len(readers), _PANEL_INCHES + 0.3), layout="constrained")
    axes = figure.subplots(1, len(readers), squeeze=False)[0]
    areas = {(row["reader"], row["condition"]): row for row in area_table(study).rows}
    conditions = list(dict.fromkeys(sitting.condition for sitting in curves))
    for ax, reader in zip(axes, readers, strict=True):
        for condition in conditions:
            if (curve := curves.get(Sitting(reader, condition))) is not None:
                label = f"{condition}, AUC {areas[reader, condition]['auc']:.3f}"
                _draw_curve(ax, curve, conditions.index(condition), label)
        _finish_roc(ax, reader)
        _mark(ax, study)
    return figure


def _draw_curve(ax: Axes, curve: RocCurve, number: int, label: str) -> None:
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
        label=label,
    )


def _finish_roc(ax: Axes, reader: str) -> None:
    ax.plot([0, 1], [0, 1], color="#888888", linewidth=0.8)
    ax.set(
        title=reader, xlabel="1 − specificity", ylabel="Sensitivity", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02)
    )
    ax.set_aspect("equal")
    ax.legend(loc="lower right", fontsize=9, frameon=False)
    ax.spines[["top", "right"]].set_visible(False)


def confidence_figure(study: Study) -> Figure:
    """Shares of the seven levels as stacked bars, one bar a reader and condition."""
    from matplotlib.figure import Figure

    sittings = study.sittings("confidence")
    figure = Figure(figsize=(9, 1.3 + 0.5 * len(sittings)), layout="constrained")
    ax = figure.subplots()
    for row, sitting in enumerate(sittings):
        _draw_bar(ax, row, list(study.numbers("confidence", sitting).values()))
    ax.set_yticks(range(len(sittings)), [str(sitting) for sitting in sittings])
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


def rendered(figure: Figure, kind: str) -> bytes:
    """The figure as `svg` or `png`; the same figure gives the same bytes."""
    import matplotlib

    stream = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "reader-study"}):
        figure.savefig(stream, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
    return stream.getvalue()
