"""What a registration network is and how it is trained: settings alone, so that rows can name them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from MRTRUSRegistrationLib.models import ModelCard, Preprocessing, Sharper

from .data.augmentation import IntensityRange, SpatialRange

Alignment = Literal["initial", "centroid", "rigid"]
Inputs = Literal["regions", "images", "images+masks"]
Box = Literal["gland", "volume"]
Structures = Literal["all", "gland", "one"]
DiceForm = Literal["weighted", "per-label", "classes"]


@dataclass(frozen=True)
class RegionLoss:
    """Weights of the loss: `mi`·L_MI + L_Dice + `smoothness`·L_reg (equation 6 has 1, 1, 0.4).

    `structures` are those of the Dice: all that a pair has, the gland alone, or one a step at random (Hu et
    al. 2018).

    `dice` is its form. `weighted` is equation 4 with the weights `gland` and `landmark`; the others use
    neither: `per-label` is the loss of Hu et al. 2018, the plain mean over structures and scales; `classes`
    is that of the official code, exclusive classes with weights of its own, which change as training goes on.
    It wants the gland among the structures, and knows no scales. Of `weighted`, `dice_squared` says whether
    the denominator is that of the code (squares) or of the paper, and with `gland_decays` the gland's weight
    falls to zero as in the code.

    `bending` weighs the bending energy. `mi_domain` says over which voxels the mutual information
    is taken: those of the fixed gland, or the whole volume, zero outside the gland, as the official code has
    it. `dense` weighs the mean distance (mm) to the true map within the gland, where a case has one.
    """

    mi: float = 1.0
    gland: float = 0.1
    landmark: float = 0.3
    smoothness: float = 0.4
    dice_scales_mm: tuple[float, ...] = (0.0,)
    dense: float = 0.0
    bending: float = 0.0
    structures: Structures = "all"
    dice: DiceForm = "weighted"
    mi_domain: Literal["gland", "volume"] = "gland"
    dice_squared: bool = True
    gland_decays: bool = False


@dataclass(frozen=True)
class RegistrationSettings:
    """What a registration network is, its input grid (i, j, k) and how it is trained.

    `network` and `options` are those of `networks.named`. `alignment` is what brings the MR near the TRUS
    before the network: the data set's own start, the glands' centroids, or ANTs on the masks.

    `inputs`: `regions` shows the gland, grown by `margin_mm`, as `intensity_floor` and `context` say (see
    `regions.show_gland`; the paper's masking is 0 for all three), `images` the images as they are,
    `images+masks` both glands beside them, whose values training scales by a random factor down to
    1 − `gland_scaling`. `box` says about what the input grid is set: the TRUS gland, or the middle of the
    TRUS volume, which wants no mask.

    Spatial ranges are the random changes of training: `shared` by both volumes, `misalignment` of the moving
    one (`simulated_misalignment` where the true map is known), and `mask_error` of the glands that the
    network is shown, which the loss does not know of. Where the true map is known, the fixed volume alone is
    also turned, about each axis by `simulated_turn_deg` (standard deviations when training begins and ends):
    how a gland lies in the TRUS is what outlines do not tell, and large turns teach to see it.

    `segmenters` names a model for MR and one for TRUS. A share `segmented_share` of the steps then shows the
    glands as these draw them, in place of `mask_error`, and validation does so always: the errors of
    segmenters are not random, and a network can learn to see through them.

    `structures` names the models whose probabilities the network is given beside the images, see
    `structures.structure_models`. With `coordinates` it is given the gland and then these models' coordinates
    in it too, see `structures.SeenStructures`; only for networks that have the option of that name.

    `sharper`, `rigid_part` and `extend_mm` are for the card, see `models.model_for_detail` and
    `deformable.deform_with_network`.
    """

    network: str = "cmsa"
    options: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Preprocessing = Preprocessing("LPS", (1.5, 1.5, 1.5), smoothing_mm=0.7)
    grid_vox: tuple[int, int, int] = (64, 48, 48)
    alignment: Alignment = "rigid"
    inputs: Inputs = "regions"
    box: Box = "gland"
    intensity_floor: float = 0.5
    context: float = 0.0
    margin_mm: float = 0.0
    mirror_averaged: bool = True
    loss: RegionLoss = RegionLoss()
    first_share: float = 0.35
    misalignment: SpatialRange = SpatialRange(
        rotation_deg=6.0, log_scale=0.03, shear=0.02, translation_vox=0.8, elastic_vox=0.4
    )
    # Simulated pairs are turned against each other already, by more than masks can tell.
    simulated_misalignment: SpatialRange = SpatialRange(
        rotation_deg=3.0, log_scale=0.02, shear=0.02, translation_vox=0.5, elastic_vox=0.7
    )
    simulated_turn_deg: tuple[float, float] = (0.0, 0.0)
    shared: SpatialRange = SpatialRange(
        rotation_deg=6.0, log_scale=0.06, shear=0.03, translation_vox=1.0, elastic_vox=0.8
    )
    mask_error: SpatialRange = SpatialRange(
        rotation_deg=0.0, log_scale=0.06, translation_vox=1.0, elastic_vox=1.5, elastic_nodes=6
    )
    gland_scaling: float = 0.0
    segmenters: Mapping[str, str] = field(default_factory=dict)
    segmented_share: float = 0.7
    validation_draws: int = 2
    intensity: IntensityRange = IntensityRange(probability=0.3, noise=0.02)
    structures: Mapping[str, str] = field(default_factory=dict)
    coordinates: bool = False
    sharper: Sharper | None = None
    rigid_part: bool = False
    extend_mm: float = 0.0
    kind: Literal["registration"] = "registration"

    @property
    def shown(self) -> dict[str, float]:
        """The `floor` and `context` that `regions.show_gland` is given."""
        if self.inputs == "regions":
            return {"floor": self.intensity_floor, "context": self.context}
        return {"floor": 0.0, "context": 1.0}


def region_settings(settings: RegistrationSettings) -> dict[str, Any]:
    """What a card says of how the network is shown a pair; what is not said is the pipeline's default."""
    shown = settings.shown
    content: dict[str, Any] = {"intensity_floor": shown["floor"]}
    if shown["context"]:
        content["context"] = shown["context"]
    if settings.margin_mm:
        content["margin_mm"] = settings.margin_mm
    if settings.alignment != "rigid":
        content["alignment"] = settings.alignment
    if settings.inputs == "images+masks":
        content["inputs"] = settings.inputs
    if settings.box != "gland":
        content["box"] = settings.box
    if settings.rigid_part:
        content["rigid_part"] = True
    if settings.extend_mm:
        content["extend_mm"] = settings.extend_mm
    if settings.structures:
        content["structures"] = dict(settings.structures)
    if settings.coordinates:
        content["coordinates"] = True
    if settings.sharper is not None:
        content["sharper"] = asdict(settings.sharper)
    return content


def draft_card(settings: RegistrationSettings) -> ModelCard:
    """The card of a network in training, as far as pre-processing needs it."""
    return ModelCard(
        name=settings.network,
        title="",
        task="registration",
        modality="MR-TRUS",
        architecture={},
        preprocessing=settings.preprocessing,
        grid_vox=settings.grid_vox,
        settings=region_settings(settings),
        training_data=(),
        figures=(),
        licence="",
        file="",
        sha256="",
    )
