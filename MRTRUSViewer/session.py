"""The process of one visitor: `python -m MRTRUSViewer.session`, started by the front and by nothing else.

Its first line of standard input says what to open; when standard input closes, the process ends. It prints
the port that it listens on.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from pathlib import Path

from .opening import Opening


def main() -> None:
    """Serve one visitor until the tab is closed."""
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_front, args=(order["folder"],), daemon=True).start()
    # Libraries print to standard output, which belongs to the port.
    channel = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    from .app import Viewer

    viewer = Viewer(
        folder=Path(order["folder"]), secret=order["secret"], opening=Opening.from_json(order["opening"])
    )

    def tell_port(**_: object) -> None:
        channel.write(json.dumps({"port": viewer.server.port}) + "\n")
        channel.flush()

    viewer.server.controller.on_server_ready.add(tell_port)
    try:
        viewer.serve()
    finally:
        viewer.close()


def _end_with_front(folder: str) -> None:
    while sys.stdin.read(1):
        pass
    # A registration that runs ends when it notices the same.
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    main()
