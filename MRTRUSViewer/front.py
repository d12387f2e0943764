"""The one address that browsers see: it hands every visitor to a process of their own and passes all on.

Who knows the address of a session is its visitor: it holds 128 random bits. Without a token only this machine
is answered, under its own names, so that no page elsewhere reaches the viewer by a name of its own.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib.resources import files

import aiohttp
from aiohttp import web

from MRTRUSRegistrationLib.errors import InputError

from .sessions import Session, Sessions

KEY_HEADER = "X-MRTRUS-Session"
_COOKIE = "mrtrus_token"
_OWN_NAMES = ("127.0.0.1", "localhost", "[::1]")
_DROPPED = ("host", "connection", "transfer-encoding", "content-encoding", "content-length", "keep-alive")
_CHUNK_BYTES = 1 << 16
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Front:
    """The web application before the sessions; `token` is asked of every visitor where there is one."""

    def __init__(self, sessions: Sessions, *, token: str | None = None) -> None:
        self._sessions, self._token = sessions, token
        self._spare: Session | None = None
        self._client: aiohttp.ClientSession | None = None
        self.app = web.Application(middlewares=[self._guard], client_max_size=1 << 40)
        self.app.add_routes(
            [
                web.get("/", self._visit),
                web.get("/s/{id}/", self._page),
                web.get("/s/{id}/ready", self._ready),
                web.post("/s/{id}/paraview/", self._address),
                web.get("/s/{id}/ws", self._socket),
                web.route("*", "/s/{id}/{path:.*}", self._pass_on),
            ]
        )
        self.app.on_startup.append(self._start)
        self.app.on_shutdown.append(self._stop)

    async def _start(self, app: web.Application) -> None:
        self._client = aiohttp.ClientSession(auto_decompress=False)
        # It starts while the browser does.
        with suppress(InputError):
            self._spare = await self._sessions.start()

    async def _stop(self, app: web.Application) -> None:
        await self._sessions.close()
        if self._client is not None:
            await self._client.close()

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Strangers are turned away, whatever they ask for."""
        if self._token is None:
            if request.host.rsplit(":", 1)[0] not in _OWN_NAMES:
                return _sentence("The viewer answers on this machine only.", status=403)
        elif not self._knows_token(request):
            return _sentence("Open the viewer by the address with its token.", status=403)
        response = await handler(request)
        if not response.prepared:
            response.headers.setdefault("Referrer-Policy", "no-referrer")
            response.headers.setdefault("X-Content-Type-Options", "nosniff")
            response.headers.setdefault("X-Frame-Options", "SAMEORIGIN")
        return response

    def _knows_token(self, request: web.Request) -> bool:
        given = request.query.get("token") or request.cookies.get(_COOKIE) or ""
        return hmac.compare_digest(given.encode(), (self._token or "").encode())

    async def _visit(self, request: web.Request) -> web.StreamResponse:
        session, self._spare = self._spare, None
        if session is None or not session.alive:
            try:
                session = await self._sessions.start()
            except InputError as error:
                return _sentence(str(error), status=503)
        response = web.HTTPFound(f"/s/{session.id}/")
        if self._token is not None:
            response.set_cookie(_COOKIE, self._token, httponly=True, samesite="Strict")
        raise response

    async def _page(self, request: web.Request) -> web.StreamResponse:
        session = self._sessions.get(request.match_info["id"])
        if session is None:
            raise web.HTTPFound("/")
        if not session.ready:
            return web.Response(text=_asset("starting.html"), content_type="text/html")
        return await self._forward(request, session, "index.html")

    async def _ready(self, request: web.Request) -> web.StreamResponse:
        """Answers when the session is ready, or soon after it has failed."""
        session = self._session(request)
        ended = asyncio.create_task(session.process.wait())
        await asyncio.wait({ended, session.port}, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if not session.ready:
            return _sentence("The viewer could not be started; its terminal says why.", status=503)
        return web.Response()

    async def _address(self, request: web.Request) -> web.StreamResponse:
        """What trame's client asks a launcher for."""
        session = self._session(request)
        url = f"ws://USE_HOST/s/{session.id}/ws"
        return web.json_response({"sessionURL": url, "secret": session.secret, "id": session.id})

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        return await self._forward(request, self._session(request), request.match_info["path"])

    async def _forward(self, request: web.Request, session: Session, path: str) -> web.StreamResponse:
        assert self._client is not None
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _DROPPED}
        headers[KEY_HEADER] = session.secret
        url = f"http://127.0.0.1:{await session.port}/{path}"
        body = request.content if request.can_read_body else None
        try:
            async with self._client.request(
                request.method, url, headers=headers, data=body, allow_redirects=False
            ) as answer:
                return await _copied(request, answer)
        except aiohttp.ClientConnectionError:
            return _sentence("The session has ended.", status=410)

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        assert self._client is not None
        session = self._session(request)
        outer = web.WebSocketResponse(max_msg_size=0, compress=False)
        await outer.prepare(request)
        url = f"http://127.0.0.1:{await session.port}/ws"
        async with self._client.ws_connect(url, max_msg_size=0, compress=0) as inner:
            directions = [asyncio.create_task(_pump(*pair)) for pair in ((outer, inner), (inner, outer))]
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            for direction in directions:
                direction.cancel()
        await outer.close()
        return outer

    def _session(self, request: web.Request) -> Session:
        session = self._sessions.get(request.match_info["id"])
        if session is None:
            raise web.HTTPGone(text="The session has ended: load the page again.")
        return session


async def _copied(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    headers = {k: v for k, v in answer.headers.items() if k.lower() not in _DROPPED[:3]}
    response = web.StreamResponse(status=answer.status, headers=headers)
    await response.prepare(request)
    async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
        await response.write(chunk)
    await response.write_eof()
    return response


async def _pump(
    source: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
    target: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
) -> None:
    """Messages of one side to the other until one of them closes."""
    async for message in source:
        if message.type == aiohttp.WSMsgType.TEXT:
            await target.send_str(message.data)
        elif message.type == aiohttp.WSMsgType.BINARY:
            await target.send_bytes(message.data)


def _sentence(text: str, *, status: int) -> web.Response:
    return web.Response(text=text, status=status, content_type="text/plain")


def _asset(name: str) -> str:
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")
