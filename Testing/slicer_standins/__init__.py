"""Stand-ins for what desktop Slicer has and slicer-core lacks, for tests of the module's widget.

PySide6 takes the place of PythonQt; the scene, its nodes and the worker process behind the widget are real.
Each stand-in does what Slicer's documentation says of the real one, and no more: they prove names, bindings,
enabled states and the order of calls, not the behaviour of a real Slicer.
"""

from .application import Desktop, install
from .harness import OpenModule, open_module, slicer_scene

__all__ = ["Desktop", "OpenModule", "install", "open_module", "slicer_scene"]
