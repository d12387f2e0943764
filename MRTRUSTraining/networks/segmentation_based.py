"""Segmentation-based registration (Chen et al. 2021, comparator [13] of paper A).

Stated by paper A: segmentation results are used, and gland similarity alone drives the training. Recalled
from the method's abstract: the network is given the image pair and both gland probability maps; here it is
given the masks that the pipeline makes of them, as every other network. Its layers are not stated in either;
ours are VoxelMorph's with four input channels, so that rows differ in what they are shown and by what they
are judged, not in size.
"""

import torch

from .voxelmorph import SingleStream


class SegmentationBasedNet(SingleStream):
    """Both images and both glands (0…1), each (B, 1, K, J, I), to the displacement (B, 3, K, J, I).

    Voxels, frame, sizes and options as in `CMSANet`; 328,195 parameters.
    """

    def __init__(self, *, integration_steps: int = 7, initialisation: str = "default") -> None:
        super().__init__(4, integration_steps, initialisation)

    def forward(
        self,
        moving: torch.Tensor,
        fixed: torch.Tensor,
        moving_gland: torch.Tensor,
        fixed_gland: torch.Tensor,
    ) -> torch.Tensor:
        x = torch.cat([moving, fixed, moving_gland, fixed_gland], dim=1)
        return self.displacement(self.velocity(x))
