"""One process for every visitor: with a scene of its own, and gone with its memory when the tab is closed.

Slicer's factories of displayable managers belong to the process, so that two scenes in one would share their
views' application logic; a process also keeps one visitor's computing from holding up another's pictures.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from MRTRUSRegistrationLib.errors import InputError

from .opening import Opening

MOST_SESSIONS = 8
_STOP_S = 5.0


@dataclass
class Session:
    """A running process. `secret` opens its socket and its files; only the front knows it."""

    id: str
    secret: str
    folder: Path
    process: asyncio.subprocess.Process
    port: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def ready(self) -> bool:
        return self.alive and self.port.done() and not self.port.cancelled()

    @property
    def alive(self) -> bool:
        return self.process.returncode is None


class Sessions:
    """Starts, finds and ends the processes of the visitors."""

    def __init__(self, opening: Opening, *, most: int = MOST_SESSIONS) -> None:
        self._opening, self._most = opening, most
        self._all: dict[str, Session] = {}
        self._followers: set[asyncio.Task[None]] = set()

    def get(self, identifier: str) -> Session | None:
        session = self._all.get(identifier)
        return session if session is not None and session.alive else None

    async def start(self) -> Session:
        """A new session, not ready yet; `InputError` where there are too many."""
        if sum(session.alive for session in self._all.values()) >= self._most:
            raise InputError(f"All {self._most} places are taken: close a tab of the viewer or come later.")
        folder = Path(tempfile.mkdtemp(prefix="mrtrus-view-"))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "MRTRUSViewer.session"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=_environment(folder),
        )
        session = Session(secrets.token_hex(16), secrets.token_hex(32), folder, process)
        self._all[session.id] = session
        assert process.stdin is not None
        order = {"secret": session.secret, "folder": str(folder), "opening": self._opening.to_json()}
        process.stdin.write(json.dumps(order).encode() + b"\n")
        follower = asyncio.create_task(self._follow(session))
        self._followers.add(follower)
        follower.add_done_callback(self._followers.discard)
        return session

    async def _follow(self, session: Session) -> None:
        """Note the port when it is told; clean up when the process has ended."""
        stream = session.process.stdout
        assert stream is not None
        async for line in stream:
            with suppress(ValueError, KeyError, TypeError, asyncio.InvalidStateError):
                session.port.set_result(int(json.loads(line)["port"]))
        await session.process.wait()
        self._all.pop(session.id, None)
        shutil.rmtree(session.folder, ignore_errors=True)

    async def close(self) -> None:
        """End every session: each ends by itself when its standard input closes."""
        for session in list(self._all.values()):
            if session.alive and session.process.stdin is not None:
                session.process.stdin.close()
        await asyncio.wait(self._followers or {asyncio.create_task(asyncio.sleep(0))}, timeout=_STOP_S)
        for session in list(self._all.values()):
            with suppress(ProcessLookupError):
                session.process.kill()
            shutil.rmtree(session.folder, ignore_errors=True)


def _environment(folder: Path) -> dict[str, str]:
    """Temporary files lie in the session's folder and go with it; JPEG pictures gain nothing by deflating."""
    chosen = {"TMPDIR": str(folder), "TEMP": str(folder), "TMP": str(folder), "WSLINK_WS_COMPRESS": "0"}
    if sys.platform == "linux":
        # Without a display, and on one, pictures are drawn off screen.
        chosen["VTK_DEFAULT_OPENGL_WINDOW"] = os.environ.get(
            "VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow"
        )
    return {**os.environ, **chosen}
