"""From the chosen nodes to the files and the job of the worker. Nothing in the scene is changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    import SimpleITK as sitk  # noqa: N813

    from ..geometry import Grid
    from ..job import Job
    from .case_nodes import CaseNodes


@dataclass(frozen=True)
class Inputs:
    """Nodes for one run; the optional ones are `None` where the worker shall find them or do without.

    `initial` is gland, world or transform; then `initial_transform` is its node.
    """

    mr: Any
    trus: Any
    mr_gland: Any = None
    trus_gland: Any = None
    mr_landmarks: Any = None
    trus_landmarks: Any = None
    targets: Any = None
    lesions: Any = None
    initial: str = "gland"
    initial_transform: Any = None
    pair_mr: Any = None
    pair_trus: Any = None

    def node_ids(self) -> tuple[str, ...]:
        """The nodes without which the run makes no sense."""
        return tuple(node.GetID() for node in (self.mr, self.trus))


def inputs_of_case(case: CaseNodes) -> Inputs:
    """The images of a case with its own glands, corrected or not, and its landmarks."""
    return Inputs(
        mr=case.mr,
        trus=case.trus,
        mr_gland=case.mr_gland,
        trus_gland=case.trus_gland,
        mr_landmarks=case.mr_landmarks,
        trus_landmarks=case.trus_landmarks,
    )


def write_inputs(inputs: Inputs, folder: Path, options: dict[str, Any]) -> Job:
    """Write the nodes into `folder` and return the job; `InputError` for a node that cannot be used.

    `options` are the job's fields that are not files: method, models, device, seed, confidence, case_name.
    """
    from ..job import Job
    from .readers import check_pair, image_of, volume_grid

    check_pair(inputs.mr, inputs.trus)
    files = _Files(folder)
    mr_grid, trus_grid = volume_grid(inputs.mr), volume_grid(inputs.trus)
    paths: dict[str, Any] = {
        "mr": files.image(image_of(inputs.mr, what="MR"), "mr"),
        "trus": files.image(image_of(inputs.trus, what="TRUS"), "trus"),
        "mr_mask": files.gland(inputs.mr_gland, mr_grid, "MR"),
        "trus_mask": files.gland(inputs.trus_gland, trus_grid, "TRUS"),
        "targets": None if inputs.targets is None else files.points(inputs.targets, "targets"),
        "lesions": files.lesions(inputs.lesions, mr_grid),
        "initial": files.initial(inputs),
        **files.rigid_from_pairs(inputs),
    }
    if inputs.mr_landmarks is not None and inputs.trus_landmarks is not None:
        paths["mr_landmarks"] = files.points(inputs.mr_landmarks, "mr_landmarks")
        paths["trus_landmarks"] = files.points(inputs.trus_landmarks, "trus_landmarks")
    return Job(output=folder / "result", **paths, **options)


class _Files:
    """Writes each kind of node where the job looks for it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def image(self, image: sitk.Image, name: str) -> Path:
        import SimpleITK as sitk  # noqa: N813

        path = self._folder / f"{name}.nrrd"
        try:
            sitk.WriteImage(image, str(path))
        except RuntimeError as error:
            raise InputError(
                f"The temporary folder {self._folder} cannot be written to; free some space or check its "
                "rights."
            ) from error
        return path

    def gland(self, segmentation: Any, grid: Grid, what: str) -> Path | None:
        from .readers import gland_mask_of

        if segmentation is None:
            return None
        return self.image(gland_mask_of(segmentation, grid, what), f"{what.lower()}_gland")

    def points(self, node: Any, name: str) -> Path:
        from ..landmarks import write_landmarks
        from .readers import landmarks_of

        landmarks = landmarks_of(node)
        if not len(landmarks):
            raise InputError(f"The point list {node.GetName()} is empty; place points or choose none.")
        path = self._folder / f"{name}.mrk.json"
        write_landmarks(landmarks, path)
        return path

    def lesions(self, segmentation: Any, grid: Grid) -> Path | None:
        """Every segment but the gland, under its own name."""
        from ..target_files import write_segments
        from .targets_nodes import lesion_masks

        if segmentation is None:
            return None
        path = self._folder / "lesions.seg.nrrd"
        write_segments(list(lesion_masks(segmentation, grid).items()), path)
        return path

    def initial(self, inputs: Inputs) -> str:
        if inputs.initial != "transform":
            return inputs.initial
        return str(self._transform(inputs.initial_transform))

    def _transform(self, node: Any) -> Path:
        import SimpleITK as sitk  # noqa: N813

        from .readers import resampling_transform

        if node is None:
            raise InputError("The initial transform is no longer in the scene; choose another start.")
        path = self._folder / "initial.tfm"
        sitk.WriteTransform(resampling_transform(node), str(path))
        return path

    def rigid_from_pairs(self, inputs: Inputs) -> dict[str, Path]:
        """The rigid transform that the pairs give, and the points that say how far it can be trusted."""
        if inputs.pair_mr is None or inputs.pair_trus is None:
            return {}
        import SimpleITK as sitk  # noqa: N813

        from ..landmark_correction import rigid_from_landmarks
        from .readers import landmarks_of

        pairs = [landmarks_of(points).points_mm for points in (inputs.pair_mr, inputs.pair_trus)]
        path = self._folder / "rigid.tfm"
        sitk.WriteTransform(rigid_from_landmarks(*pairs), str(path))
        return {"rigid": path, "rigid_points": self.points(inputs.pair_trus, "rigid_points")}
