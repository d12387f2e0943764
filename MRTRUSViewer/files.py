"""Files on their way between the browser and the session: uploads, downloads, and the goodbye of a tab."""

from __future__ import annotations

import hmac
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from MRTRUSRegistrationLib.errors import InputError, failure_of

from .front import KEY_HEADER
from .messages import without_paths

if TYPE_CHECKING:
    from .app import Viewer

# A tab that is closed says so; one that only lost its connection may come back.
AWAY_S = 120
CLOSED_S = 15
_LARGEST_UPLOAD_BYTES = 2 << 30
_MOST_FILES = 5000
_SPACE_BYTES = 1 << 30
_CHUNK_BYTES = 1 << 20


class FileRoutes:
    """Plain HTTP beside trame's socket; only the front, which knows the session's secret, is answered."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._web: Any = None
        viewer.server.controller.on_server_bind.add(self._bind)
        viewer.server.controller.on_client_connected.add(self._stay)

    def _bind(self, server: Any) -> None:
        self._web = server
        server.app.add_routes(
            [
                web.delete("/upload/{role}", self._forget),
                web.post("/upload/{role}/{name}", self._upload),
                web.get("/download/{offer}", self._download),
                web.post("/bye", self._bye),
            ]
        )

    def _check(self, request: web.Request) -> None:
        if not hmac.compare_digest(request.headers.get(KEY_HEADER, ""), self._viewer.secret):
            raise web.HTTPForbidden()

    async def _forget(self, request: web.Request) -> web.Response:
        """A new choice of files for a role takes the place of the one before."""
        self._check(request)
        shutil.rmtree(self._viewer.case_section.upload_folder(request.match_info["role"]), ignore_errors=True)
        return web.Response()

    async def _upload(self, request: web.Request) -> web.Response:
        self._check(request)
        try:
            await self._receive(request)
        except (InputError, OSError) as error:
            return _sentence(error)
        return web.Response()

    async def _receive(self, request: web.Request) -> None:
        """Write the body of a request to the role's folder, or nothing."""
        name = Path(request.match_info["name"].replace("\\", "/")).name
        folder = self._viewer.case_section.upload_folder(request.match_info["role"])
        folder.mkdir(parents=True, exist_ok=True)
        if not name or name.startswith(".") or sum(1 for _ in folder.iterdir()) >= _MOST_FILES:
            raise InputError(f"{name or 'This file'} cannot be uploaded: choose another.")
        path, received = folder / name, 0
        try:
            with path.open("wb") as file:
                async for chunk in request.content.iter_chunked(_CHUNK_BYTES):
                    received += len(chunk)
                    self._check_room(name, received)
                    file.write(chunk)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def _check_room(self, name: str, received: int) -> None:
        if received > _LARGEST_UPLOAD_BYTES:
            raise InputError(f"{name} is larger than 2 GB: choose a file with one volume.")
        if shutil.disk_usage(self._viewer.folder).free < _SPACE_BYTES:
            raise InputError(f"The server has no room left for {name}: ask its keeper.")

    async def _download(self, request: web.Request) -> web.StreamResponse:
        self._check(request)
        try:
            name, content = self._viewer.export.content(request.match_info["offer"])
        except Exception as error:
            return _sentence(error)
        disposition = f'attachment; filename="{name}"'
        return web.Response(body=content, headers={"Content-Disposition": disposition})

    async def _bye(self, request: web.Request) -> web.Response:
        """The tab is being closed or loaded again: unless it comes back at once, the session ends."""
        self._check(request)
        self._web.config["timeout"] = CLOSED_S
        # wslink does not tell how many are connected.
        if not any(handler.connections for handler in self._web._ws_handlers):
            self._web.shutdown_cancel()
            self._web.shutdown_schedule()
        return web.Response()

    def _stay(self, **_: Any) -> None:
        """A tab that has come back may lose its connection for a while again."""
        self._web.config["timeout"] = AWAY_S


def _sentence(error: BaseException) -> web.Response:
    failure = failure_of(error, hint="the log of the server has the details")
    return web.Response(text=without_paths(failure.message), status=422, content_type="text/plain")
