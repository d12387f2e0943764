"""Real Slicer slice and 3-D views without Slicer: pictures of a scene for the tests.

The views are those of slicer-core, driven as desktop Slicer drives them; OpenGL is Mesa's, through EGL or
OSMesa. `SliceViews` shows the axial, sagittal and coronal planes through a point.
"""

from __future__ import annotations

import os

os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

ORIENTATIONS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}
_SLICE_MANAGERS = (
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLTransformsDisplayableManager2D",
    "vtkMRMLModelSliceDisplayableManager",
)
_3D_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLMarkupsDisplayableManager",
)


class OffscreenApplication:
    """The logics that a view expects of an application, around one scene."""

    def __init__(self, scene: slicer.vtkMRMLScene) -> None:
        self.scene = scene
        self.logic = slicer.vtkSlicerApplicationLogic()
        self.logic.SetMRMLScene(scene)
        self.logic.GetColorLogic().SetMRMLScene(scene)
        self.logic.GetColorLogic().AddDefaultColorNodes()
        self.logic.SetSliceLogics(vtk.vtkCollection())
        self.logic.SetViewLogics(vtk.vtkCollection())
        self.modules = {
            "Segmentations": slicer.vtkSlicerSegmentationsModuleLogic(),
            "Markups": slicer.vtkSlicerMarkupsLogic(),
            "SubjectHierarchy": slicer.vtkSlicerSubjectHierarchyModuleLogic(),
        }
        for name, logic in self.modules.items():
            logic.SetMRMLApplicationLogic(self.logic)
            logic.SetMRMLScene(scene)
            self.logic.SetModuleLogic(name, logic)
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
        crosshair = slicer.vtkMRMLCrosshairNode()
        crosshair.SetCrosshairName("default")
        scene.AddNode(crosshair)


class SliceViews:
    """Axial, sagittal and coronal views of a scene, each `size` pixels wide and high."""

    def __init__(self, application: OffscreenApplication, *, size: int = 256) -> None:
        self.views = {name: _SliceView(application, name, size) for name in ORIENTATIONS}

    def centre_on(self, point_ras_mm: np.ndarray, *, field_of_view_mm: float) -> None:
        """Show the three planes through a point."""
        for view in self.views.values():
            view.look_at(point_ras_mm, field_of_view_mm)

    def render(self) -> None:
        for view in self.views.values():
            view.render()

    def pictures(self) -> dict[str, np.ndarray]:
        """RGB pictures (row, column, 3) by orientation, the first row at the top."""
        return {ORIENTATIONS[name]: view.picture() for name, view in self.views.items()}

    def strip(self) -> np.ndarray:
        """The three pictures side by side."""
        return np.concatenate(list(self.pictures().values()), axis=1)


class _SliceView:
    def __init__(self, application: OffscreenApplication, name: str, size: int) -> None:
        self.window, renderer, self.interactor = _window(size)
        self.mapper = vtk.vtkImageMapper()
        self.mapper.SetColorWindow(255)
        self.mapper.SetColorLevel(127.5)
        self.actor = vtk.vtkActor2D()
        self.actor.SetMapper(self.mapper)
        self.actor.GetProperty().SetDisplayLocationToBackground()
        renderer.AddViewProp(self.actor)
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        _register(factory, application, _SLICE_MANAGERS)
        self.group = slicer.vtkMRMLDisplayableManagerGroup()
        self.group.Initialize(factory, renderer)
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(application.logic)
        application.logic.GetSliceLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(application.scene)
        self.node = self.logic.AddSliceNode(name)
        self.node.SetOrientation(ORIENTATIONS[name])
        self.group.SetMRMLDisplayableNode(self.node)
        self.logic.ResizeSliceNode(size, size)

    def look_at(self, point_ras_mm: np.ndarray, field_of_view_mm: float) -> None:
        self.node.SetFieldOfView(field_of_view_mm, field_of_view_mm, self.node.GetFieldOfView()[2])
        self.node.JumpSliceByCentering(*point_ras_mm.tolist())

    def render(self) -> None:
        self.logic.UpdatePipeline()
        # The producer changes with the number of layers.
        self.mapper.SetInputConnection(self.logic.GetImageDataConnection())
        self.actor.SetVisibility(self.logic.GetImageDataConnection() is not None)
        self.window.Render()

    def picture(self) -> np.ndarray:
        self.render()
        return _grab(self.window)


class View3D:
    """A 3-D view of a scene."""

    def __init__(self, application: OffscreenApplication, *, size: int = 256) -> None:
        self.window, self.renderer, self.interactor = _window(size)
        factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
        _register(factory, application, _3D_MANAGERS)
        self.group = slicer.vtkMRMLDisplayableManagerGroup()
        self.group.Initialize(factory, self.renderer)
        self.logic = slicer.vtkMRMLViewLogic()
        self.logic.SetMRMLApplicationLogic(application.logic)
        application.logic.GetViewLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(application.scene)
        self.node = self.logic.AddViewNode("View1")
        self.node.SetBoxVisible(False)
        self.node.SetAxisLabelsVisible(False)
        self.group.SetMRMLDisplayableNode(self.node)

    def picture(self) -> np.ndarray:
        """An RGB picture (row, column, 3) of everything that is visible."""
        self.window.Render()
        self.renderer.ResetCamera()
        self.window.Render()
        return _grab(self.window)


def _window(size: int) -> tuple[vtk.vtkRenderWindow, vtk.vtkRenderer, vtk.vtkGenericRenderWindowInteractor]:
    window = vtk.vtkRenderWindow()
    window.SetOffScreenRendering(True)
    # With several samples and depth peeling translucent surfaces vanish.
    window.SetMultiSamples(0)
    window.SetSize(size, size)
    renderer = vtk.vtkRenderer()
    window.AddRenderer(renderer)
    interactor = vtk.vtkGenericRenderWindowInteractor()
    interactor.SetRenderWindow(window)
    interactor.UpdateSize(size, size)
    return window, renderer, interactor


def _register(factory, application: OffscreenApplication, managers: tuple[str, ...]) -> None:
    factory.SetMRMLApplicationLogic(application.logic)
    for manager in managers:
        if not factory.IsDisplayableManagerRegistered(manager):
            factory.RegisterDisplayableManager(manager)


def _grab(window: vtk.vtkRenderWindow) -> np.ndarray:
    grabber = vtk.vtkWindowToImageFilter()
    grabber.SetInput(window)
    grabber.ReadFrontBufferOff()
    grabber.ShouldRerenderOff()
    grabber.Update()
    image = grabber.GetOutput()
    columns, rows, _ = image.GetDimensions()
    pixels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(rows, columns, -1)
    return pixels[::-1, :, :3].copy()
