"""`mrtrus view`: the browser app."""

from __future__ import annotations

import asyncio
import socket
import webbrowser
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.models import list_models

from .opening import Opening, opening_of

_OWN_HOSTS = ("127.0.0.1", "localhost", "::1")
_SHORTEST_TOKEN = 8


def view(
    data: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[DIR | SCENE.mrb | MR TRUS]",
            help="A result folder, a scene bundle, an MR and a TRUS, or a folder in which to choose.",
        ),
    ] = None,
    port: Annotated[int, typer.Option(help="Port; 0 for any that is free.")] = 8080,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the browser.")] = True,
    host: Annotated[str, typer.Option(help="Address to serve on; another needs --token.")] = "127.0.0.1",
    token: Annotated[
        str | None, typer.Option(help="Word that visitors must know.", envvar="MRTRUS_TOKEN")
    ] = None,
) -> None:
    """Judge a registration in the browser, on the views of 3D Slicer; or load, register, correct, export."""
    opening = opening_of(data or [])
    _check_address(host, token)
    # Registering would fail on what is wrong with them.
    list_models()
    if find_spec("trame_slicer") is None or find_spec("slicer") is None:
        raise InputError("The browser app is not installed: install it with pip install mrtrus[web].")
    asyncio.run(_serve(opening, host, _free_port(host, port), token, browser))


def _check_address(host: str, token: str | None) -> None:
    if host not in _OWN_HOSTS and token is None:
        raise InputError(f"Serving on {host} lets others in: give a --token that they must know.")
    if token is not None and len(token) < _SHORTEST_TOKEN:
        raise InputError(f"The token is too short: give at least {_SHORTEST_TOKEN} characters.")


def _free_port(host: str, port: int) -> int:
    """The port, known to be free; `InputError` where it is taken or the address is not this machine's."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, port), family=family) as probe:
            return int(probe.getsockname()[1])
    except (OSError, OverflowError) as error:
        raise InputError(f"Port {port} on {host} cannot be used ({error}): give another --port.") from error


async def _serve(opening: Opening, host: str, port: int, token: str | None, browser: bool) -> None:
    """Serve until interrupted."""
    from aiohttp import web

    from .front import Front
    from .sessions import Sessions

    front = Front(Sessions(opening), token=token)
    runner = web.AppRunner(front.app, access_log=None, handle_signals=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{port}/" + (f"?token={token}" if token else "")
        print(f"Serving the viewer on {address} (Ctrl+C ends it)", flush=True)
        print("Research use only: not a medical device.", flush=True)
        if browser:
            webbrowser.open(address)
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
