"""Slice views drawn without a screen, by Slicer's own slice logic and displayable managers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

_MANAGERS = (
    "vtkMRMLVolumeGlyphSliceDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLColorLegendDisplayableManager",
)


class SliceView:
    """One of the layout's slice views: background and foreground volume, segmentations, markups, colour legend.

    As in Slicer, a view shows a colour legend only if the legend was made after the view.

    Args:
        name: of the view in the layout, e.g. "Red".
        size: pixels (width, height).
    """

    def __init__(self, name: str = "Red", size: tuple[int, int] = (400, 400)) -> None:
        self._size = size
        self._logic = slicer.app.layoutManager().sliceWidget(name).sliceLogic()
        self._renderer = vtk.vtkRenderer()
        self._window = vtk.vtkRenderWindow()
        self._window.SetOffScreenRendering(1)
        self._window.SetMultiSamples(0)
        self._window.SetSize(*size)
        self._window.AddRenderer(self._renderer)
        self._interactor = vtk.vtkRenderWindowInteractor()
        self._interactor.SetRenderWindow(self._window)
        self._renderer.GetActiveCamera().ParallelProjectionOn()
        self._show_volumes()  # before all that is blended over them
        self._group = self._displayable_managers()

    @property
    def node(self) -> Any:
        """The slice node."""
        return self._logic.GetSliceNode()

    @property
    def layers(self) -> Any:
        """The composite node: which volume is in which layer."""
        return self._logic.GetSliceCompositeNode()

    def fit(self) -> None:
        """Show the whole background volume."""
        self._logic.ResizeSliceNode(*self._size)
        self._logic.FitSliceToBackground(*self._size)

    def picture(self) -> np.ndarray:
        """(height, width, 3) uint8, the top row first."""
        self._logic.ResizeSliceNode(*self._size)
        self._window.Render()
        grabber = vtk.vtkWindowToImageFilter()
        grabber.SetInput(self._window)
        grabber.ReadFrontBufferOff()
        grabber.Update()
        image = grabber.GetOutput()
        width, height, _ = image.GetDimensions()
        pixels = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)
        return np.ascontiguousarray(pixels[::-1, :, :3])

    def save(self, path: Path) -> Path:
        """Write the picture as PNG."""
        from .qt_module import qt

        pixels = self.picture()
        image = qt.QImage(pixels.data, pixels.shape[1], pixels.shape[0], pixels.strides[0], qt.QImage.Format_RGB888)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not image.save(str(path)):
            raise OSError(f"could not write {path}")
        return path

    def pixel_of(self, ras: Any) -> tuple[int, int]:
        """(row, column) in the picture of a point in RAS mm."""
        to_pixel = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(self.node.GetXYToRAS(), to_pixel)
        x, y = to_pixel.MultiplyPoint((*[float(v) for v in ras], 1.0))[:2]
        return self._size[1] - 1 - round(y), round(x)

    def close(self) -> None:
        """Give the window back."""
        self._group.SetMRMLDisplayableNode(None)
        self._window.Finalize()

    def _displayable_managers(self) -> Any:
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        factory.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        for name in _MANAGERS:
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        group = slicer.vtkMRMLDisplayableManagerGroup()
        group.SetRenderer(self._renderer)
        group.Initialize(factory, self._renderer)
        group.SetMRMLDisplayableNode(self.node)
        return group

    def _show_volumes(self) -> None:
        mapper = vtk.vtkImageMapper()
        mapper.SetColorWindow(255)
        mapper.SetColorLevel(127.5)
        mapper.SetInputConnection(self._logic.GetImageDataConnection())
        actor = vtk.vtkActor2D()
        actor.SetMapper(mapper)
        actor.GetProperty().SetDisplayLocationToBackground()
        self._renderer.AddViewProp(actor)
        self._volumes = actor
        # Without volumes there is nothing to map, and VTK would complain.
        self._logic.AddObserver("ModifiedEvent", lambda *_: self._connect_volumes())
        self._connect_volumes()

    def _connect_volumes(self) -> None:
        connection = self._logic.GetImageDataConnection()
        self._volumes.SetVisibility(connection is not None)
        if connection is not None:
            self._volumes.GetMapper().SetInputConnection(connection)
