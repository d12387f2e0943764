"""Time to switch between the stages of a review, with off-screen Slicer views, by the clock.

`python Testing/benchmarks/switch_time.py [--result FOLDER --mr FILE --trus FILE] [--rounds 10] [--size 512]`:
shows before, rigid and deformable in turn in three slice views and waits for each picture. Without a result
a case with the voxels of 0.8 mm of a TRUS volume of 65 by 94 by 70 mm is made. Quote the median and the
maximum; the first round, in which the images are computed, is told apart.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import SimpleITK as sitk  # noqa: N813
import slicer
from mrml_case import Committed, commit_in_memory
from offscreen import OffscreenApplication, SliceViews

from MRTRUSRegistrationLib.images import read_image
from MRTRUSRegistrationLib.mrml.case_nodes import CaseNodes
from MRTRUSRegistrationLib.mrml.frames import points_ras
from MRTRUSRegistrationLib.mrml.readers import volume_grid
from MRTRUSRegistrationLib.mrml.result_folder import add_result
from MRTRUSRegistrationLib.mrml.review import Review
from MRTRUSRegistrationLib.mrml.scene_file import new_scene, quiet_vtk
from MRTRUSRegistrationLib.mrml.stages import stages_of
from MRTRUSRegistrationLib.mrml.volumes import add_volume

_MADE_CASE = {"trus_size_vox": (81, 118, 88), "trus_spacing_mm": (0.8,) * 3, "mr_size_vox": (160, 160, 40)}


def made_case() -> Committed:
    return commit_in_memory(scene=new_scene(), **_MADE_CASE)


def read_case(scene: slicer.vtkMRMLScene, folder: Path, mr: Path, trus: Path) -> CaseNodes:
    """A result folder around its images, as the panel commits it."""
    images: list[sitk.Image] = [
        read_image(path, role=role).image for path, role in ((mr, "MR"), (trus, "TRUS"))
    ]
    nodes = [add_volume(scene, image, name) for image, name in zip(images, ("MR", "TRUS"), strict=True)]
    return add_result(scene, folder, mr_node=nodes[0], trus_node=nodes[1], name=folder.name)


def switch_times_ms(case: CaseNodes, *, rounds: int, size: int) -> list[list[float]]:
    """Milliseconds of every switch until all three views are drawn, one list a round."""
    application = OffscreenApplication(case.scene)
    views = SliceViews(application, size=size)
    grid = volume_grid(case.trus)
    extent_mm = float(max(np.array(grid.size_vox) * grid.spacing_mm))
    views.centre_on(points_ras(grid.centre_mm), field_of_view_mm=extent_mm)
    review = Review(case)
    review.start()
    views.render()
    return [[_switch_ms(review, views, stage) for stage in stages_of(case)] for _ in range(rounds)]


def _switch_ms(review: Review, views: SliceViews, stage: str) -> float:
    start = time.perf_counter()
    review.change(stage=stage)
    views.pictures()
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--result", type=Path, help="Folder of a finished registration.")
    parser.add_argument("--mr", type=Path)
    parser.add_argument("--trus", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--size", type=int, default=512, help="Pixels of each view's side.")
    options = parser.parse_args()
    if options.result and not (options.mr and options.trus):
        parser.error("--result needs --mr and --trus")
    with quiet_vtk():
        # The scene has to outlive its nodes.
        made = None if options.result else made_case()
        scene = new_scene()
        case = made.case if made else read_case(scene, options.result, options.mr, options.trus)
        first, *later = switch_times_ms(case, rounds=options.rounds + 1, size=options.size)
    times = [value for each in later for value in each]
    print(f"first time of each stage: {', '.join(f'{value:.0f}' for value in first)} ms")
    print(
        f"later, {len(times)} switches: median {statistics.median(times):.0f} ms, maximum {max(times):.0f} ms"
    )


if __name__ == "__main__":
    main()
