"""The Slicer module MRTRUS Registration: Slicer's own classes, and nothing that computes.

Everything else lies in MRTRUSRegistrationLib; heavy packages are imported where they are used, in a child
process.
"""

import sys
from pathlib import Path
from typing import Annotated

import slicer
import vtk
from slicer import (
    vtkMRMLMarkupsFiducialNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLScriptedModuleNode,
    vtkMRMLSegmentationNode,
    vtkMRMLTransformNode,
)
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

from MRTRUSRegistrationLib import HOMEPAGE
from MRTRUSRegistrationLib.gui.choices import Accepted, Device, Initial


class MRTRUSRegistration(ScriptedLoadableModule):
    """What Slicer's module list shows."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("MRTRUS Registration")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Registration")]
        self.parent.dependencies = []
        self.parent.contributors = ["The MRTRUSRegistration developers (independent)"]
        self.parent.helpText = _(
            "Fuses a prostate MR with a transrectal ultrasound (TRUS) volume: finds the gland in both, "
            "aligns them rigidly and deforms the MR onto the TRUS; you review and correct the result and "
            "export the targets. "
            "<b>Research use only: not a medical device.</b> "
            'See the <a href="{docs}/tutorial.md">tutorial</a>, '
            '<a href="{docs}/troubleshooting.md">what to do when something fails</a>, and the figures and '
            'limits at <a href="{homepage}">{homepage}</a>.'
        ).format(homepage=HOMEPAGE, docs=f"{HOMEPAGE}/blob/main/Docs")
        self.parent.acknowledgementText = _(
            "The method follows Z. Feng, D. Ni and Y. Wang, Salient region matching for fully automated "
            "MR-TRUS registration (arXiv 2501.03510). ANTs by B. Avants and others is used for the rigid "
            "alignment. "
            '<a href="{docs}/cite.md">How to cite</a>.'
        ).format(docs=f"{HOMEPAGE}/blob/main/Docs")
        slicer.app.connect("startupCompleted()", self.registerSampleData)

    def registerSampleData(self):
        """Slicer's sample data are there only after all modules were loaded."""
        from MRTRUSRegistrationLib.gui.sample_data import register_sample_data

        register_sample_data(Path(self.resourcePath("Icons/MRTRUSRegistration.png")))


@parameterNodeWrapper
class MRTRUSRegistrationParameterNode:
    """What the panel remembers, in the scene; how a result is looked at is kept by the result itself."""

    mrVolume: vtkMRMLScalarVolumeNode
    trusVolume: vtkMRMLScalarVolumeNode
    mrGland: vtkMRMLSegmentationNode
    trusGland: vtkMRMLSegmentationNode
    mrLandmarks: vtkMRMLMarkupsFiducialNode
    trusLandmarks: vtkMRMLMarkupsFiducialNode
    targets: vtkMRMLMarkupsFiducialNode
    lesions: vtkMRMLSegmentationNode
    initial: Initial = Initial.GLAND
    initialTransform: vtkMRMLTransformNode
    trusAxes: str = ""
    method: str = "cmsa"
    confidenceRuns: Annotated[int, WithinRange(0, 50)] = 0
    device: Device = Device.AUTO
    seed: Annotated[int, WithinRange(0, 2147483646)] = 0
    modelsFolder: str = ""
    caseNode: vtkMRMLScriptedModuleNode
    pairMr: vtkMRMLMarkupsFiducialNode
    pairTrus: vtkMRMLMarkupsFiducialNode
    usePairs: bool = False
    moveTargets: bool = False
    accepted: Accepted = Accepted.DEFORMABLE
    exportFolder: str = ""
    exportScene: bool = True
    exportTransforms: bool = True
    exportMr: bool = True
    exportTargets: bool = True
    exportReport: bool = True


class MRTRUSRegistrationWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The life cycle that Slicer asks for; the panel does the rest."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.panel = None
        self._parameterNode = None
        self._guiTag = None
        self._keys = []
        self._entered = False

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        from MRTRUSRegistrationLib.gui.panel import Panel

        uiWidget = slicer.util.loadUI(self.resourcePath("UI/MRTRUSRegistration.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = MRTRUSRegistrationLogic()
        self.panel = Panel(self.ui)
        self._keys = self.panel.use_keys(uiWidget)
        scene = slicer.mrmlScene
        self.addObserver(scene, slicer.vtkMRMLScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, slicer.vtkMRMLScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, slicer.vtkMRMLScene.EndImportEvent, self.onSceneEndImport)
        self.addObserver(scene, slicer.vtkMRMLScene.NodeRemovedEvent, self.onNodeRemoved)
        self.initializeParameterNode()

    def cleanup(self):
        """Called before the module is unloaded or reloaded, and when Slicer quits."""
        self.setParameterNode(None)
        if self.panel is not None:
            self.panel.close()
        self.removeObservers()

    def enter(self):
        self._entered = True
        for key in self._keys:
            key.enabled = True
        self.initializeParameterNode()
        self.panel.review.show_again()

    def exit(self):
        """The keys work, and pictures move, only while the module is shown."""
        self._entered = False
        for key in self._keys:
            key.enabled = False
        self.panel.review.stop()

    def onSceneStartClose(self, caller, event):
        self.setParameterNode(None)
        self.panel.scene_closing()

    def onSceneEndClose(self, caller, event):
        if self._entered:
            self.initializeParameterNode()

    def onSceneEndImport(self, caller, event):
        self.initializeParameterNode()
        self.panel.review.show_again()

    def onNodeRemoved(self, caller, event):
        # While a scene closes, every node goes; then there is nothing to show.
        if self._parameterNode is not None and not slicer.mrmlScene.IsClosing():
            self.panel.refresh()

    def initializeParameterNode(self):
        """Bind the scene's parameter node, unless it is bound already."""
        parameterNode = self.logic.getParameterNode()
        bound = self._parameterNode
        if bound is None or bound.parameterNode is not parameterNode.parameterNode:
            self.setParameterNode(parameterNode)

    def setParameterNode(self, parameterNode):
        """Bind the widgets to another parameter node, or to none while a scene is closed."""
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(
                self._parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self.onModified
            )
        self._parameterNode = parameterNode
        if parameterNode is not None:
            self._guiTag = parameterNode.connectGui(self.ui)
            self.addObserver(parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self.onModified)
        if self.panel is not None:
            self.panel.set_parameters(parameterNode)

    def onModified(self, caller=None, event=None):
        self.panel.refresh()

    def onReload(self):
        """Reload the library too; Slicer by itself reloads this file alone."""
        for name in [name for name in sys.modules if name.split(".")[0] == "MRTRUSRegistrationLib"]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)


class MRTRUSRegistrationLogic(ScriptedLoadableModuleLogic):
    """For other modules and scripts: the parameter node, and results as nodes."""

    def getParameterNode(self):
        return MRTRUSRegistrationParameterNode(super().getParameterNode())

    def loadResult(self, folder, mrVolume, trusVolume, name):
        """Add a result folder, such as `mrtrus register` writes, around two volumes of the scene."""
        from MRTRUSRegistrationLib.mrml.result_folder import add_result

        return add_result(slicer.mrmlScene, folder, mr_node=mrVolume, trus_node=trusVolume, name=name)


class MRTRUSRegistrationTest(ScriptedLoadableModuleTest):
    """A short test inside Slicer; Testing/Python has the longer ones."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        self.setUp()
        self.test_ParameterNode()

    def test_ParameterNode(self):
        """The parameter node has its defaults and keeps a node."""
        parameters = MRTRUSRegistrationLogic().getParameterNode()
        self.assertEqual(parameters.method, "cmsa")
        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "MR")
        parameters.mrVolume = volume
        self.assertEqual(MRTRUSRegistrationLogic().getParameterNode().mrVolume.GetID(), volume.GetID())
        with self.assertRaises(ValueError):
            parameters.confidenceRuns = 51
