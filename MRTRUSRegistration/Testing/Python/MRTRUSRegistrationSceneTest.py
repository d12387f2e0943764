"""Inside Slicer: the panel opens, the inputs are checked, the parameter node survives a saved scene."""

import importlib.util
import os
import tempfile
import unittest

import numpy as np
import slicer


class MRTRUSRegistrationSceneTest(unittest.TestCase):
    def setUp(self):
        slicer.mrmlScene.Clear()

    def test_the_panel_opens_without_heavy_packages(self):
        import sys

        before = set(sys.modules)
        widget = slicer.util.getNewModuleWidget("MRTRUSRegistration")
        self.assertFalse(widget.ui.registerButton.enabled)
        self.assertFalse({"torch", "ants"} & (set(sys.modules) - before))

    def test_an_empty_volume_is_refused(self):
        from MRTRUSRegistrationLib.errors import InputError
        from MRTRUSRegistrationLib.mrml.readers import check_pair

        empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")
        volume = slicer.util.addVolumeFromArray(np.ones((12, 12, 12), np.int16), name="Volume")
        with self.assertRaisesRegex(InputError, "Empty is empty"):
            check_pair(volume, empty)
        with self.assertRaisesRegex(InputError, "two different volumes"):
            check_pair(volume, volume)

    def test_the_parameter_node_survives_a_saved_scene(self):
        from MRTRUSRegistration import MRTRUSRegistrationLogic

        volume = slicer.util.addVolumeFromArray(np.ones((12, 12, 12), np.int16), name="MR")
        parameters = MRTRUSRegistrationLogic().getParameterNode()
        parameters.mrVolume = volume
        parameters.method = "rigid"
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "scene.mrb")
            self.assertTrue(slicer.util.saveScene(path))
            slicer.mrmlScene.Clear()
            slicer.util.loadScene(path)
        parameters = MRTRUSRegistrationLogic().getParameterNode()
        self.assertEqual(parameters.method, "rigid")
        self.assertEqual(parameters.mrVolume.GetName(), "MR")

    def test_the_private_folder_is_not_on_this_path(self):
        from MRTRUSRegistrationLib.gui.install import default_root

        spec = importlib.util.find_spec("numpy")
        self.assertFalse(str(spec.origin).startswith(str(default_root())))
