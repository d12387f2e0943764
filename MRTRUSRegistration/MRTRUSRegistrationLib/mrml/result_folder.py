"""A finished result folder, read and committed to a scene in one step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
import slicer

from ..errors import InputError
from ..geometry import Grid
from ..results import LandmarkRow, Landmarks, Measures, QualityWarning
from .case import add_content
from .case_nodes import CaseNodes, find_cases
from .content import CaseContent
from .frames import right_handed
from .readers import check_pair, volume_grid
from .transaction import all_or_nothing
from .versions import deactivate
from .volumes import add_volume

# Masks come back through files in single precision.
_SAME_GRID_MM = 0.01
_STAGES = {"initial": "initial", "rigid": "rigid", "final": "deformable"}


def load_result(folder: str | Path) -> CaseContent:
    """Read what a finished registration wrote; `InputError` if the folder does not hold one."""
    folder = Path(folder)
    facts = _read_json(folder)
    try:
        masks = [sitk.ReadImage(str(folder / f"{name}_mask.nii.gz")) for name in ("mr", "trus")]
        rigid = sitk.ReadTransform(str(folder / "rigid.h5")).Downcast()
        final = sitk.ReadTransform(str(folder / "mr_to_trus.h5"))
        return _content(folder, facts, masks, rigid, final)
    except (RuntimeError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"{folder} is not a complete result, or a damaged one: run the registration again."
        ) from error


def add_result(
    scene: slicer.vtkMRMLScene,
    folder: str | Path,
    *,
    mr_node: slicer.vtkMRMLScalarVolumeNode,
    trus_node: slicer.vtkMRMLScalarVolumeNode,
    name: str,
    previous: CaseNodes | None = None,
) -> CaseNodes:
    """Commit a result folder to a scene around the user's own volumes; show its last stage.

    `previous` is any version of a case that was registered again: the result becomes its next version.
    `InputError`, with the scene as it was, if the folder or a volume cannot be used or they do not belong
    together.
    """
    check_pair(mr_node, trus_node)
    if mr_node.GetScene() is not scene or trus_node.GetScene() is not scene:
        raise InputError("The scene was closed during the registration: load the images again.")
    content = load_result(folder)
    _check_belongs(content.mr_mask, mr_node, "MR", folder)
    if content.trus is None:
        _check_belongs(content.trus_mask, trus_node, "TRUS", folder)
    with all_or_nothing(scene):
        return _commit(scene, content, mr_node, trus_node, name, folder, previous)


def _commit(
    scene: slicer.vtkMRMLScene,
    content: CaseContent,
    mr_node: slicer.vtkMRMLScalarVolumeNode,
    trus_node: slicer.vtkMRMLScalarVolumeNode,
    name: str,
    folder: str | Path,
    previous: CaseNodes | None,
) -> CaseNodes:
    if content.trus is not None and not _same(content.trus, trus_node):
        # The run re-labelled its axes; the user's own volume stays as it is.
        trus_node = add_volume(scene, content.trus, f"{trus_node.GetName()} (axes corrected)")
    others = [case for case in find_cases(scene) if previous and case.case_id == previous.case_id]
    try:
        case = add_content(scene, content, mr=mr_node, trus=trus_node, name=name, previous=previous)
    except ValueError as error:
        raise InputError(f"{folder} holds a transform that cannot be used: {error}") from error
    for other in others:
        deactivate(other)
    return case


def _read_json(folder: Path) -> dict[str, Any]:
    try:
        facts = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder} does not hold a finished registration: choose a folder that has a result.json."
        ) from error
    from ..outputs import RESULT_FORMAT

    if not isinstance(facts, dict) or facts.get("format") != RESULT_FORMAT:
        raise InputError(
            f"{folder} holds a result of another version of the software: run the registration again."
        )
    return facts


def _content(
    folder: Path, facts: dict[str, Any], masks: list[sitk.Image], rigid: sitk.Transform, final: sitk.Transform
) -> CaseContent:
    rows = tuple(_row(entry) for entry in facts["landmarks"])
    deformation = _deformation(final)
    mr_landmarks, trus_landmarks = _landmarks(facts, rows)
    report = folder / "report.html"
    return CaseContent(
        mr_mask=masks[0],
        trus_mask=masks[1],
        initial=sitk.ReadTransform(str(folder / "initial.h5")),
        rigid=rigid,
        deformation=deformation,
        mr_landmarks=mr_landmarks,
        trus_landmarks=trus_landmarks,
        measures=_measures(facts["measures"], deformable=deformation is not None),
        rows=rows,
        warnings=tuple(QualityWarning(w["code"], w["message"]) for w in facts["warnings"]),
        provenance=facts["provenance"],
        method=facts["method"],
        confidence_mm=_optional_image(folder / "confidence_mm.nii.gz"),
        report_html=report.read_text(encoding="utf-8") if report.exists() else "",
        trus=_optional_image(folder / "trus.nii.gz"),
        trus_axes=facts.get("trus_axes", ""),
    )


def _optional_image(path: Path) -> sitk.Image | None:
    return sitk.ReadImage(str(path)) if path.exists() else None


def _deformation(final: sitk.Transform) -> sitk.DisplacementFieldTransform | None:
    """The field in a composite of the rigid transform and, where there is one, the deformation."""
    composite = sitk.CompositeTransform(final)
    if composite.GetNumberOfTransforms() < 2:
        return None
    return sitk.DisplacementFieldTransform(composite.GetNthTransform(1))


def _measures(values: dict[str, dict[str, float | None]], *, deformable: bool) -> dict[str, Measures]:
    return {
        stage: Measures({name: value for name, value in values[key].items() if value is not None})
        for key, stage in _STAGES.items()
        if key != "final" or deformable
    }


def _row(entry: dict[str, Any]) -> LandmarkRow:
    """A landmark of result.json; JSON has no nan."""
    initial = entry["initial_error_mm"]
    warped = entry["warped_mm"]
    return LandmarkRow(
        name=entry["name"],
        fixed_mm=tuple(entry["fixed_mm"]),
        warped_mm=tuple(warped) if warped is not None else None,
        initial_error_mm=float("nan") if initial is None else initial,
        rigid_error_mm=entry["rigid_error_mm"],
        error_mm=entry["error_mm"],
        lost=entry["lost"],
    )


def _landmarks(
    facts: dict[str, Any], rows: tuple[LandmarkRow, ...]
) -> tuple[Landmarks | None, Landmarks | None]:
    """The landmarks of MR and of TRUS."""
    if not rows:
        return None, None
    given = facts["mr_landmarks_mm"]
    trus = Landmarks(tuple(row.name for row in rows), _points([row.fixed_mm for row in rows]))
    return Landmarks(tuple(given), _points(list(given.values()))), trus


def _points(positions: list[Any]) -> np.ndarray:
    return np.array(positions, float).reshape(-1, 3)


def _same(image: sitk.Image, volume: slicer.vtkMRMLScalarVolumeNode) -> bool:
    return Grid.of(right_handed(image)).same_as(volume_grid(volume), tolerance_mm=_SAME_GRID_MM)


def _check_belongs(
    mask: sitk.Image, volume: slicer.vtkMRMLScalarVolumeNode, what: str, folder: str | Path
) -> None:
    if not _same(mask, volume):
        raise InputError(
            f"The result in {folder} was made from another {what} than {volume.GetName()}: choose the volume"
            " that was registered."
        )
