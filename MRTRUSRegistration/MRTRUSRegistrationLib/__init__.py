"""Registration of prostate MR to transrectal ultrasound (TRUS), importable without Slicer.

`from MRTRUSRegistrationLib import register` is the whole pipeline; nothing heavy is imported before it is
asked for. Research use only: not a medical device.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
# To be set when the extension is submitted: there is no public repository yet. The Extensions Index reads the
# same address as text from CMakeLists.txt and MRTRUSRegistration.json, where a test compares it.
HOMEPAGE = "https://github.com/mrtrus/SlicerMRTRUSRegistration"
__all__ = ["HOMEPAGE", "Settings", "__version__", "register"]

if TYPE_CHECKING:
    from .pipeline import Settings, register


def __getattr__(name: str) -> Any:
    if name in ("Settings", "register"):
        from . import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
