"""Inside Slicer: one rigid registration in the worker process, from two drawn glands to nodes."""

import time
import unittest

import numpy as np
import slicer


class MRTRUSRegistrationRunTest(unittest.TestCase):
    def setUp(self):
        slicer.mrmlScene.Clear()
        from MRTRUSRegistrationLib.gui.worker_environment import WorkerSetup

        if not WorkerSetup().ready:
            # Testing mode installs nothing, so that a machine without the packages has nothing to run.
            self.skipTest(
                "torch or the private packages are not installed; open the module and press Register once"
            )

    def test_register(self):
        """The glands' centres meet, and nothing but the result was added."""
        widget = slicer.util.getNewModuleWidget("MRTRUSRegistration")
        parameters = widget.panel.parameters
        parameters.mrVolume, parameters.mrGland = add_case("MR", (0.0, 0.0, 0.0))
        parameters.trusVolume, parameters.trusGland = add_case("TRUS", (6.0, -4.0, 2.0))
        parameters.method = "centroid"
        widget.panel.registration.on_register()
        end = time.monotonic() + 300
        while widget.panel.runner.running and time.monotonic() < end:
            slicer.app.processEvents()
            time.sleep(0.05)
        case = widget.panel.case
        self.assertIsNotNone(case)
        point = np.array(case.rigid.GetTransformToParent().TransformPoint((0.0, 0.0, 0.0)))
        np.testing.assert_allclose(point, (6.0, -4.0, 2.0), atol=0.2)


def add_case(name, centre_ras):
    """A volume with a bright ball, and the ball as a segmentation."""
    axis = np.arange(48) - 23.5
    k, j, i = np.meshgrid(axis, axis, axis, indexing="ij")
    distance = np.sqrt((i - centre_ras[0]) ** 2 + (j - centre_ras[1]) ** 2 + (k - centre_ras[2]) ** 2)
    volume = slicer.util.addVolumeFromArray((200 - 5 * distance).astype(np.int16), name=name)
    volume.SetOrigin(-23.5, -23.5, -23.5)
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{name} gland")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segmentation.GetSegmentation().AddEmptySegment("Prostate")
    ball = (distance < 16).astype(np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(ball, segmentation, "Prostate", volume)
    return volume, segmentation
