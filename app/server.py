"""The app as a whole, and the server it runs in."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Flask
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from app.bench import Bench
from app.offered_files import OfferedFiles
from app.pages import inspector, jobs, sets, simulate
from app.security import LOOPBACK, admit_others, guard
from app.state import Asked
from workbench.jobs import Desk

__all__ = ["PortError", "create_app", "listen", "serve"]

TEXT = "The Eiffel Tower is located in the city of"
TARGET = " Paris"


class PortError(OSError):
    """The port or the address cannot be listened on. One line that says what to do."""


def create_app(
    desk: Desk, *, text: str = TEXT, target: str = TARGET, lenses: Path | None = None
) -> Flask:
    """The app over the models of a desk.

    It answers this machine only, under its own names, until `serve` or `listen` is given another
    host.

    Args:
        desk: does the work; whoever made it starts and stops it. Its first model is measured when a
            page is opened without a link.
        text: the prompt that the page opens with.
        target: the token followed in it, with its leading space.
        lenses: the folder whose fitted lenses the page offers by name; "lenses" in the desk's home
            where None.
    """
    server = Flask("workbench", static_folder=None)
    guard(server)
    bench = Bench(desk, None if lenses is None else OfferedFiles(lenses))
    jobs.mount(server, bench)
    sets.mount(server, bench)
    simulate.mount(server, bench)
    inspector.mount(server, bench, Asked(bench.names[0], text, target))
    return server


def listen(
    app: Flask, host: str = "127.0.0.1", port: int = 8050, token: str | None = None
) -> BaseWSGIServer:
    """A server that listens, but does not answer yet; its `port` is the port it got.

    Args:
        app: what `create_app` made.
        host: address to bind.
        port: port to bind; 0 for any free one.
        token: needed for any host but this machine's own; whoever opens the page brings it.

    Raises:
        ValueError: a host that others can reach, without a token.
        PortError: the address cannot be bound.
    """
    if token is not None:
        admit_others(app, host, token)
    elif host not in LOOPBACK:
        raise ValueError(f"{host} can be reached by others: give a token, or use 127.0.0.1")
    with _bound(host, port) as bound:
        return make_server(
            host, port, app, threaded=True, request_handler=_Quiet, fd=bound.fileno()
        )


def serve(
    app: Flask,
    host: str = "127.0.0.1",
    port: int = 8050,
    token: str | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serves the app until interrupted.

    `ready` is called with the page's address, token included, once it can be opened. The other
    arguments and the errors are those of `listen`.
    """
    server = listen(app, host, port, token)
    if ready is not None:
        query = "" if token is None else f"?token={token}"
        ready(f"http://{host}:{server.port}/{query}")
    try:
        server.serve_forever()
    finally:
        server.server_close()


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen()
    except OverflowError:
        bound.close()
        raise PortError(f"port {port} is none: expected 0..65535") from None
    except OSError as error:
        bound.close()
        raise PortError(_refusal(error, host, port)) from None
    return bound


def _refusal(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use: stop the other program or choose another with --port"
    return f"cannot listen on {host}, port {port}: {error.strerror or error}"


class _Quiet(WSGIRequestHandler):
    """Logs errors, but not each request."""

    protocol_version = "HTTP/1.1"

    def log_request(self, *_: Any) -> None:
        """Says nothing."""
