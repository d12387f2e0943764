"""The pipeline: two glands, rigid alignment, deformation, measures. One call registers one case.

`register` runs the stages in order; a mask, a segmentation or a rigid transform given in place of a stage's
result is taken as it is, so that a corrected mask reruns only what follows it.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813

from . import __version__
from .deformable import SynSettings, deform_with_network, deform_with_syn
from .errors import InputError
from .geometry import Grid, mask_centroid_mm, mask_volume_ml, resample, resample_mask
from .masks import check_same_patient
from .measures import PointMap, landmark_rows, registration_measures
from .models import (
    InstalledModel,
    ModelCard,
    drawers,
    find_model,
    list_models,
    model_for_detail,
    resolve_device,
)
from .progress import CancelToken, ProgressCallback, Reporter
from .quality import quality_warnings
from .results import (
    Deformation,
    GlandSegmentation,
    LandmarkRow,
    Landmarks,
    Measures,
    QualityWarning,
    Registration,
    RigidAlignment,
)
from .rigid import RigidSettings, align_centroids, align_rigid, as_rigid, gland_initial, turn_deg
from .segmentation import PUBLIC_AXES, agree_on_volume, mask_warnings, segment_gland
from .structures import structure_models
from .transforms import compose, inverse_points_mm

RigidStage = Literal["initial", "centroid", "ants"]


@dataclass(frozen=True)
class Method:
    """What a method runs: its rigid stage, then nothing, SyN on the masks, or a network named by its card."""

    rigid: RigidStage
    deformable: Literal["none", "syn", "network"] = "none"


_METHODS = {
    "initial": Method("initial"),
    "centroid": Method("centroid"),
    "rigid": Method("ants"),
    "syn": Method("ants", "syn"),
}
DEFAULT_METHOD = "cmsa"
METHOD_NAMES = (*_METHODS, DEFAULT_METHOD)
# About the length of a large gland: beyond it the masks do not overlap.
_MAX_GAP_MM = 80.0


@dataclass(frozen=True)
class Settings:
    """How to register.

    `method` is initial, centroid, rigid, syn, or the name of an installed registration model (cmsa).
    Its card may name another model for sharp TRUS volumes, see `models.model_for_detail`.
    `initial` is "gland" (the glands' centroids are matched), "world" (the headers are trusted) or a
    transform from TRUS points to MR points. `models` is a folder searched before the others.
    """

    method: str = DEFAULT_METHOD
    initial: Literal["gland", "world"] | sitk.Transform = "gland"
    models: Path | None = None
    device: str = "auto"
    seed: int = 0
    rigid: RigidSettings = field(default_factory=RigidSettings)
    syn: SynSettings = field(default_factory=SynSettings)


def register(
    mr: sitk.Image,
    trus: sitk.Image,
    *,
    settings: Settings | None = None,
    mr_gland: GlandSegmentation | sitk.Image | None = None,
    trus_gland: GlandSegmentation | sitk.Image | None = None,
    rigid: RigidAlignment | sitk.Transform | None = None,
    mr_landmarks: Landmarks | None = None,
    trus_landmarks: Landmarks | None = None,
    mr_orientation_known: bool = True,
    trus_orientation_known: bool = True,
    warnings: tuple[QualityWarning, ...] = (),
    progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
) -> Registration:
    """Register MR to TRUS.

    Images are 3-D; masks are binary and lie on their image's grid; landmarks correspond index by index.
    An image whose orientation is not known is shown to the networks as its header says and as in public
    data, and the surer result is kept. `warnings` are those of reading the input.

    Raises `InputError` for what cannot be used, `RegistrationError` when a stage fails and `Cancelled` when
    `cancel` was set.
    """
    settings = settings or Settings()
    _check_correspondence(mr_landmarks, trus_landmarks)
    run = _Run(settings, trus, Reporter(progress, cancel))
    seen = (
        run.segment(mr, mr_gland, "MR", known=mr_orientation_known),
        run.segment(trus, trus_gland, "TRUS", known=trus_orientation_known),
    )
    warnings += check_same_patient(seen[0].mask, seen[1].mask, "the MR mask", "the TRUS mask")
    glands = (seen[0], run.agree(*seen) if trus_gland is None else seen[1])
    initial = run.initial(*glands)
    alignment = run.align(*glands, initial, rigid)
    deformation = run.deform(mr, trus, *glands, alignment, split_rigid=rigid is None)
    if deformation is not None and deformation.alignment is not None:
        turned_deg = turn_deg(initial, deformation.alignment.transform)
        alignment = replace(deformation.alignment, rotation_deg=turned_deg)
    with run.stage("resample"):
        transform = compose(alignment.transform, deformation and deformation.transform)
        registered_mr = resample(mr, Grid.of(trus), transform)
        registered_mask = resample_mask(glands[0].mask, Grid.of(trus), transform)
    with run.stage("measure"):
        maps = StageMaps.of(initial, alignment, deformation)
        rows = maps.rows(mr_landmarks, trus_landmarks, Grid.of(trus))
        measures = {
            "final": registration_measures(
                registered_mask, glands[1].mask, rows, deformation=deformation and deformation.transform
            ),
            "rigid": maps.measures(*glands, rows, "rigid"),
            "initial": maps.measures(*glands, rows, "initial"),
        }
    warnings += (*glands[0].warnings, *glands[1].warnings, *alignment.warnings)
    warnings += deformation.warnings if deformation else ()
    warnings += quality_warnings(measures["final"], deformable=deformation is not None)
    return Registration(
        mr=mr,
        trus=trus,
        mr_gland=glands[0],
        trus_gland=glands[1],
        initial=initial,
        rigid=alignment,
        deformation=deformation,
        transform=transform,
        registered_mr=registered_mr,
        registered_mr_mask=registered_mask,
        mr_landmarks=mr_landmarks,
        trus_landmarks=trus_landmarks,
        measures=measures["final"],
        initial_measures=measures["initial"],
        rigid_measures=measures["rigid"],
        warnings=warnings,
        timings_s=dict(run.timings_s),
        method=settings.method,
        provenance=run.provenance(),
    )


class _Run:
    """The stages of one run, with their settings, progress and times."""

    def __init__(self, settings: Settings, trus: sitk.Image, reporter: Reporter) -> None:
        self.settings = settings
        self.reporter = reporter
        self.timings_s: dict[str, float] = {}
        self.models: list[InstalledModel] = []
        self.segmenters: dict[str, InstalledModel] = {}
        self.device = resolve_device(settings.device)
        # A model that is missing should stop the run before its slow stages.
        self.network = None if settings.method in _METHODS else self._network(trus)
        self.method = _METHODS[settings.method] if self.network is None else _method_of(self.network.card)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage and report its start and end."""
        self.reporter.report(name, 0.0)
        start = time.perf_counter()
        yield
        self.timings_s[name] = time.perf_counter() - start
        self.reporter.report(name, 1.0)

    def _network(self, trus: sitk.Image) -> InstalledModel:
        """The method's model, or the one that its card names for a TRUS as sharp as this."""
        name, extra = self.settings.method, self.settings.models
        check_method(name, extra)
        model = find_model(task="registration", modality="MR-TRUS", name=name, extra=extra)
        found = model_for_detail(model, trus, extra)
        self.models += [found, *structure_models(found).values()]
        return found

    def _segmenter(self, modality: str) -> InstalledModel:
        found = find_model(task="segmentation", modality=modality, extra=self.settings.models)
        self.segmenters[modality] = found
        self.models.append(found)
        return found

    def agree(self, mr_gland: GlandSegmentation, trus_gland: GlandSegmentation) -> GlandSegmentation:
        """The segmented TRUS gland, redrawn with what the MR gland says of its volume."""
        return agree_on_volume(trus_gland, mask_volume_ml(mr_gland.mask), self.segmenters["TRUS"])

    def segment(
        self, image: sitk.Image, given: GlandSegmentation | sitk.Image | None, modality: str, *, known: bool
    ) -> GlandSegmentation:
        if given is not None:
            _check_given_mask(given if isinstance(given, sitk.Image) else given.mask, image, modality)
        if isinstance(given, GlandSegmentation):
            return given
        if given is not None:
            axes = "" if known else PUBLIC_AXES
            return GlandSegmentation(given, axes=axes, warnings=mask_warnings(given, modality))
        with self.stage(f"segment {modality}"):
            model = self._segmenter(modality)
            found = segment_gland(
                image, model, orientation_known=known, device=self.device, reporter=self.reporter
            )
            if found.model != model.card.name:
                self.models += drawers(model)[1:]
            return found

    def initial(self, mr_gland: GlandSegmentation, trus_gland: GlandSegmentation) -> sitk.Transform:
        start = self.settings.initial
        if start == "world":
            return sitk.TranslationTransform(3)
        if start == "gland":
            return gland_initial(mr_gland.mask, trus_gland.mask)
        return as_rigid(start, mask_centroid_mm(trus_gland.mask))

    def align(
        self,
        mr_gland: GlandSegmentation,
        trus_gland: GlandSegmentation,
        initial: sitk.Transform,
        given: RigidAlignment | sitk.Transform | None,
    ) -> RigidAlignment:
        if isinstance(given, RigidAlignment):
            return given
        centre = mask_centroid_mm(trus_gland.mask)
        if given is not None:
            transform = as_rigid(given, centre)
            return RigidAlignment(transform, "given", turn_deg(initial, transform))
        with self.stage("align"):
            if self.method.rigid == "initial":
                return RigidAlignment(as_rigid(initial, centre), "initial", 0.0)
            if self.method.rigid == "centroid":
                return align_centroids(mr_gland.mask, trus_gland.mask, initial)
            _check_near(mr_gland, trus_gland, initial)
            options = {"settings": self.settings.rigid, "seed": self.settings.seed}
            return align_rigid(mr_gland.mask, trus_gland.mask, initial, **options)  # type: ignore[arg-type]

    def deform(
        self,
        mr: sitk.Image,
        trus: sitk.Image,
        mr_gland: GlandSegmentation,
        trus_gland: GlandSegmentation,
        alignment: RigidAlignment,
        *,
        split_rigid: bool,
    ) -> Deformation | None:
        """What follows the rigid stage; `split_rigid` lets a network whose card says so find that one too."""
        if self.method.deformable == "none":
            return None
        masks = mr_gland.mask, trus_gland.mask
        with self.stage("deform"):
            if self.network is None:
                options: dict[str, Any] = {"settings": self.settings.syn, "seed": self.settings.seed}
                return deform_with_syn(*masks, alignment.transform, reporter=self.reporter, **options)
            options = {"device": self.device, "reporter": self.reporter, "axes": trus_gland.axes}
            options["mr_axes"] = mr_gland.axes
            options["split_rigid"] = split_rigid and bool(self.network.card.settings.get("rigid_part", False))
            found = deform_with_network(mr, trus, *masks, alignment.transform, self.network, **options)
            # The model may be another than the one that the method is named after.
            return replace(found, method=self.settings.method)

    def provenance(self) -> dict[str, object]:
        """Versions, models with checksums, settings: what a reader needs to repeat the run."""
        return {
            "software": {"mrtrus": __version__, "python": platform.python_version(), **_versions()},
            "models": {model.card.name: model.card.sha256 for model in self.models},
            "settings": {
                "method": self.settings.method,
                "initial": self.settings.initial if isinstance(self.settings.initial, str) else "file",
                "device": self.device,
                "seed": self.settings.seed,
                "rigid": asdict(self.settings.rigid),
                **({"syn": asdict(self.settings.syn)} if self.method.deformable == "syn" else {}),
            },
            "system": platform.platform(),
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }


# What a card calls the alignment that its network wants, as a stage of the pipeline.
_CARD_ALIGNMENTS: dict[str, RigidStage] = {"initial": "initial", "centroid": "centroid", "rigid": "ants"}


def method_named(name: str, models: Path | None = None) -> Method:
    """What a method runs: a built-in one, or an installed model after the alignment that its card wants.

    `InputError` for a name that is neither; `models` is searched first.
    """
    if name in _METHODS:
        return _METHODS[name]
    check_method(name, models)
    return _method_of(find_model(task="registration", modality="MR-TRUS", name=name, extra=models).card)


def _method_of(card: ModelCard) -> Method:
    """A network after the alignment that its card wants."""
    alignment = card.settings.get("alignment", "rigid")
    if alignment not in _CARD_ALIGNMENTS:
        raise InputError(
            f"The card of {card.name} asks for the alignment {alignment!r}, which this version does not "
            "know; export the model again."
        )
    return Method(_CARD_ALIGNMENTS[alignment], "network")


def check_method(name: str, models: Path | None = None) -> None:
    """`InputError` unless the method is built in or an installed model; `models` is searched first."""
    if name not in METHOD_NAMES and name not in (model.card.name for model in list_models(models)):
        raise InputError(
            f"The method {name!r} is not known; use {', '.join(METHOD_NAMES)} or the name of an "
            "installed registration model (see `mrtrus models`)."
        )


def _check_correspondence(mr_landmarks: Landmarks | None, trus_landmarks: Landmarks | None) -> None:
    if mr_landmarks is None or trus_landmarks is None or mr_landmarks.names == trus_landmarks.names:
        return
    raise InputError(
        f"The landmarks of the MR ({', '.join(mr_landmarks.names)}) and of the TRUS "
        f"({', '.join(trus_landmarks.names)}) do not correspond; give the same ones in the same order."
    )


def _check_given_mask(mask: sitk.Image, image: sitk.Image, modality: str) -> None:
    if not Grid.of(mask).same_as(Grid.of(image)):
        raise InputError(
            f"The mask of the {modality} lies on another grid than its image; resample it first."
        )
    if not np.any(sitk.GetArrayViewFromImage(mask)):
        raise InputError(f"The mask of the {modality} is empty; draw the prostate gland in it.")


def _check_near(mr_gland: GlandSegmentation, trus_gland: GlandSegmentation, initial: sitk.Transform) -> None:
    """Glands that lie apart give ANTs nothing to follow, and a grid around both that may fill the memory."""
    start_mm = initial.TransformPoint(mask_centroid_mm(trus_gland.mask).tolist())
    gap_mm = float(np.linalg.norm(np.array(start_mm) - mask_centroid_mm(mr_gland.mask)))
    if gap_mm > _MAX_GAP_MM:
        raise InputError(
            f"The glands lie {gap_mm:.0f} mm apart in the initial position, too far to be aligned; use "
            "--initial gland."
        )


def _versions() -> dict[str, str]:
    found = {}
    for name in ("torch", "antspyx", "SimpleITK", "numpy", "scipy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


@dataclass(frozen=True)
class StageMaps:
    """The three stages of a registration, each in both directions."""

    initial: PointMap
    rigid: PointMap
    final: PointMap

    @classmethod
    def of(cls, initial: sitk.Transform, rigid: RigidAlignment, deformation: Deformation | None) -> StageMaps:
        return cls(
            _point_map(initial, None),
            _point_map(rigid.transform, None),
            _point_map(rigid.transform, deformation),
        )

    def rows(
        self, mr_landmarks: Landmarks | None, trus_landmarks: Landmarks | None, trus_grid: Grid
    ) -> tuple[LandmarkRow, ...]:
        if mr_landmarks is None or trus_landmarks is None:
            return ()
        return landmark_rows(
            mr_landmarks,
            trus_landmarks,
            transform=self.final,
            initial=self.initial,
            rigid=self.rigid,
            trus_grid=trus_grid,
        )

    def measures(
        self,
        mr_gland: GlandSegmentation,
        trus_gland: GlandSegmentation,
        rows: tuple[LandmarkRow, ...],
        stage: Literal["initial", "rigid"],
    ) -> Measures:
        transform = (self.initial if stage == "initial" else self.rigid).resampling
        moved = resample_mask(mr_gland.mask, Grid.of(trus_gland.mask), transform)
        return registration_measures(moved, trus_gland.mask, rows, stage=stage)


def stage_maps(result: Registration) -> StageMaps:
    """The maps of a finished registration, to measure it against other labels."""
    return StageMaps.of(result.initial, result.rigid, result.deformation)


def _point_map(rigid: sitk.Transform, deformation: Deformation | None) -> PointMap:
    field_transform = deformation.transform if deformation else None

    def inverse(points_mm: np.ndarray) -> np.ndarray:
        return inverse_points_mm(rigid, field_transform, points_mm)

    return PointMap(compose(rigid, field_transform), inverse)
