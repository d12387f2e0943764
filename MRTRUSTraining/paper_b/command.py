"""`mrtrus-train prepare-paper-b`: images as paper B's networks see them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import SimpleITK as sitk  # noqa: N813
import typer

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.outputs import staging_folder

from ..data.case_files import LAYOUTS, Layout
from ..data.cases import detect_layout, find_parts, list_cases
from .preprocessing import Prepared, prepare
from .settings import HarmonisationSettings, PaperBSettings
from .sources import SourceCase, SourceVolume, data_set_cases, folder_cases

RECORD_NAME = "prepared.json"
_FOLDERS = {"MR": "mr", "TRUS": "us"}
_SHOWN = 5


def prepare_paper_b(
    source: Annotated[
        Path,
        typer.Argument(help="A data set, or a folder a case with mr and trus (a volume or DICOM slices)."),
    ],
    output: Annotated[Path, typer.Option(help="An empty or new folder.")],
    layout: Annotated[str, typer.Option(help=f"auto, cases or one of {', '.join(LAYOUTS)}.")] = "auto",
    clinical: Annotated[
        bool, typer.Option(help="Also harmonise: equalise the histogram, gamma, sharpen.")
    ] = False,
    mr_frame_axis: Annotated[int, typer.Option(help="Index axis along which MR slices lie (0, 1, 2).")] = 2,
    trus_frame_axis: Annotated[int, typer.Option(help="Index axis along which TRUS frames lie.")] = 2,
) -> None:
    """Trim slices and frames, bring all to one size; writes the layout muregpro and prepared.json."""
    from rich.progress import track

    for axis in (mr_frame_axis, trus_frame_axis):
        if axis not in (0, 1, 2):
            raise InputError(f"{axis} is not an index axis; give 0, 1 or 2.")
    settings = PaperBSettings(harmonisation=HarmonisationSettings() if clinical else None)
    settings = replace(
        settings,
        mr=replace(settings.mr, frame_axis=mr_frame_axis),
        trus=replace(settings.trus, frame_axis=trus_frame_axis),
    )
    known = _layout(source, layout)
    if known is None and not source.is_dir():
        raise InputError(f"{source} is neither a data set nor a folder of cases.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"The output {output} is not an empty folder; give another.")
    cases = folder_cases(source) if known is None else data_set_cases(source, known)
    with staging_folder(output) as folder:
        records = [write_case(case, settings, folder) for case in track(cases, description="Preparing")]
        _write_json(folder / RECORD_NAME, {"settings": asdict(settings), "cases": records})
        if known is not None:
            _write_split(source, known, folder)
    print(f"{len(records)} cases prepared in {output}; {RECORD_NAME} says how.{_left_out(records)}")


def write_case(case: SourceCase, settings: PaperBSettings, folder: Path) -> dict[str, Any]:
    """Write the prepared images and labels of a case; returns what was done to each volume."""
    record: dict[str, Any] = {"case": case.name}
    for volume in case.volumes:
        side = settings.mr if volume.modality == "MR" else settings.trus
        prepared = prepare(
            volume.image, volume.labels, side, name=str(volume.path), harmonisation=settings.harmonisation
        )
        for kind, image in _files(prepared):
            path = folder / f"{_FOLDERS[volume.modality]}_{kind}" / f"{case.name}.nii.gz"
            path.parent.mkdir(exist_ok=True)
            sitk.WriteImage(image, str(path))
        record[volume.modality.casefold()] = _record(volume, prepared)
    return record


def _left_out(records: Sequence[dict[str, Any]]) -> str:
    """A sentence on the landmarks that either side of a case has lost; empty where there are none."""
    # A landmark that both sides have lost counts once.
    names = dict.fromkeys(
        (name, record["case"])
        for record in records
        for side in _FOLDERS
        for name in record.get(side.casefold(), {}).get("labels_left_out", ())
    )
    if not names:
        return ""
    cases = len({case for _, case in names})
    shown = ", ".join(f"{name} of {case}" for name, case in list(names)[:_SHOWN])
    return (
        f"\n{len(names)} landmark{'' if len(names) == 1 else 's'} of {cases} case{'' if cases == 1 else 's'} "
        f"reach beyond what is kept and are left out: {shown}{', …' if len(names) > _SHOWN else ''}."
    )


def _files(prepared: Prepared) -> Iterator[tuple[str, sitk.Image]]:
    """The image, and the labels as channels of one file where there are any."""
    yield "images", prepared.image
    if len(prepared.labels) == 1:
        yield "labels", prepared.labels[0]
    elif prepared.labels:
        yield "labels", sitk.JoinSeries(list(prepared.labels))


def _record(volume: SourceVolume, prepared: Prepared) -> dict[str, Any]:
    """What was done, the share of every label that lies in what is kept, the landmarks left out for it."""
    return {
        "source": volume.path.name,
        "acquisition": volume.acquisition,
        "size_vox": volume.image.GetSize(),
        "spacing_mm": _rounded(volume.image.GetSpacing()),
        "slices_kept": prepared.slices,
        "prepared_size_vox": prepared.image.GetSize(),
        "prepared_spacing_mm": _rounded(prepared.image.GetSpacing()),
        "labels": volume.label_names,
        "labels_kept": [share if share is None else round(share, 3) for share in prepared.kept],
        "labels_left_out": [volume.label_names[n] for n in prepared.left_out],
    }


def _rounded(values: tuple[float, ...]) -> list[float]:
    return [round(value, 4) for value in values]


def _layout(source: Path, layout: str) -> Layout | None:
    """The layout of a data set; None for a folder of cases."""
    if not source.exists():
        raise InputError(f"{source} does not exist; give a data set or a folder of cases.")
    if layout == "cases":
        return None
    if layout in LAYOUTS:
        return layout
    if layout != "auto":
        raise InputError(f"The layout {layout!r} is not known; use auto, cases, {', '.join(LAYOUTS)}.")
    try:
        return detect_layout(source)
    except InputError:
        return None


def _write_split(source: Path, layout: Layout, folder: Path) -> None:
    """The split and the patients of the data set, for whoever trains on what was prepared."""
    groups: dict[str, list[str]] = {}
    for case in list_cases(source, layout):
        groups.setdefault(case.patient, []).append(case.name)
    _write_json(folder / "splits.json", {**find_parts(source, layout), "patients": list(groups.values())})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
