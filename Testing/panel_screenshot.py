"""Register the sample case in the panel and take its picture: python Testing/panel_screenshot.py [PATH]

The panel is the real one in the stand-in desktop, so that fonts and section headers differ from Slicer's.
"""

from __future__ import annotations

import sys
from pathlib import Path

from slicer_standins import open_module, slicer_scene

TARGET = Path(__file__).resolve().parents[1] / "Resources" / "Screenshots" / "panel.png"


def main(path: Path = TARGET) -> None:
    module = open_module(slicer_scene())
    module.click("sampleCaseButton")
    module.click("registerButton")
    module.wait_for_run()
    if module.desktop.errors:
        sys.exit(module.desktop.errors[0])
    module.ui.tablesGroupBox.collapsed = False
    module.picture(path)
    module.close()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
