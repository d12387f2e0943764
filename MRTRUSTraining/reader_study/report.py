"""The results of a reader study: every table, the figures, and one page that holds them all."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from MRTRUSRegistrationLib.outputs import NOTICE
from MRTRUSRegistrationLib.page_template import page_template

from . import accuracy, pathology, ratings
from .cautions import cautions
from .delong import IntervalKind
from .figures import confidence_figure, rendered, roc_figure
from .roc import RESAMPLES
from .study import Study
from .table import Table

TABLES = (
    *("auc", "auc_comparison", "cut_off", "confidence_change", "confidence_distribution", "kappa"),
    *("t2_score_distribution", "positive_against_negative", "laterality", "laterality_change"),
    *("gleason", "gleason_correlation"),
)
FILES = (
    "report.html",
    *(f"{name}.csv" for name in TABLES),
    *(f"{name}.{kind}" for name in ("roc", "confidence") for kind in ("svg", "png")),
)
MADE_UP = "Made-up data: no patient was examined and no reader read anything."


@dataclass(frozen=True)
class Settings:
    """`interval` is that of the area under the curve; `seed` is that of the bands around the curves."""

    interval: IntervalKind = "wald"
    seed: int = 0


@dataclass(frozen=True)
class Section:
    """A part of the page: its tables, and the stem and caption of the figure that leads it, if any."""

    title: str
    tables: tuple[Table, ...]
    figure: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Results:
    """Sections in reading order, with the tables that have rows, and cautions."""

    study: Study
    sections: tuple[Section, ...]
    cautions: tuple[str, ...]
    settings: Settings

    @property
    def tables(self) -> tuple[Table, ...]:
        return tuple(table for section in self.sections for table in section.tables)


def analyse(study: Study, settings: Settings | None = None) -> Results:
    """Every table that the study has data for."""
    settings = settings or Settings()
    sections = [
        replace(section, tables=tuple(table for table in section.tables if table.rows))
        for section in _sections(study, settings)
    ]
    kept = tuple(section for section in sections if section.tables)
    tables = [table for section in kept for table in section.tables]
    return Results(study, kept, tuple(cautions(study, tables)), settings)


def _sections(study: Study, settings: Settings) -> tuple[Section, ...]:
    return (
        Section(
            "Diagnostic accuracy",
            (
                accuracy.area_table(study, interval=settings.interval),
                accuracy.area_comparison_table(study),
                accuracy.cut_off_table(study),
            ),
            "roc",
            f"ROC curves of the T2 score; bands: pointwise 95 %, {RESAMPLES} stratified bootstrap resamples, "
            f"seed {settings.seed}.",
        ),
        Section(
            "Confidence",
            (ratings.confidence_change_table(study), ratings.distribution_table(study, "confidence")),
            "confidence",
            "How often each level of confidence was given; figures in the bars are cases.",
        ),
        Section("Agreement", (ratings.kappa_table(study),)),
        Section("Scores", (ratings.distribution_table(study, "t2_score"), ratings.unpaired_table(study))),
        Section(
            "Side of the lesion",
            (pathology.concordance_table(study), pathology.concordance_change_table(study)),
        ),
        Section(
            "Gleason grade groups",
            (pathology.gleason_table(study), pathology.gleason_correlation_table(study)),
        ),
    )


def pictures(results: Results) -> dict[str, bytes]:
    """The figures that the study has data for, by file name (SVG and PNG)."""
    figures, study = {}, results.study
    curves = accuracy.curves(study, seed=results.settings.seed)
    if curves:
        figures["roc"] = roc_figure(study, curves)
    if study.sittings("confidence"):
        figures["confidence"] = confidence_figure(study)
    return {
        f"{name}.{kind}": rendered(figure, kind)
        for name, figure in figures.items()
        for kind in ("svg", "png")
    }


def write_results(results: Results, folder: Path) -> None:
    """Write report.html, one CSV a table and the figures into an existing folder."""
    notice = MADE_UP if results.study.made_up else ""
    for table in results.tables:
        (folder / f"{table.name}.csv").write_text(table.csv(notice=notice), encoding="utf-8")
    drawn = pictures(results)
    for name, content in drawn.items():
        (folder / name).write_bytes(content)
    (folder / "report.html").write_text(report_html(results, drawn), encoding="utf-8")


def report_html(results: Results, drawn: Mapping[str, bytes]) -> str:
    """The page as HTML that needs nothing else, with the SVG files of `drawn`."""
    study = results.study
    known = [study.reference(case).positive for case in study.cases]
    return page_template("report.html.j2", Path(__file__).parent).render(
        notice=NOTICE.rstrip("."),
        made_up=MADE_UP if study.made_up else "",
        comments=study.comments,
        counts={
            "cases": len(study.cases),
            "positive": known.count(True),
            "negative": known.count(False),
            "readers": len(study.readers),
            "conditions": len(study.conditions),
            "readings": sum(not reading.empty for reading in study.readings),
        },
        readers=study.readers,
        conditions=study.conditions,
        cautions=results.cautions,
        sections=results.sections,
        pictures={
            name.removesuffix(".svg"): _data_uri(content)
            for name, content in drawn.items()
            if name.endswith(".svg")
        },
        interval=results.settings.interval,
    )


def _data_uri(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode('ascii')}"
