"""A server on this machine that stands in for NDIF, well or badly."""

from __future__ import annotations

import email
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from typing import Any

import torch

from workbench.models.nnsight.tree import Tree

__all__ = ["StandIn", "serving"]


class StandIn(ThreadingHTTPServer):
    """Answers every request with `respond`, and notes what came.

    Attributes:
        outlasted: whether a client heard a slow answer to its end.
    """

    daemon_threads = True

    def __init__(self, respond: Callable[[Any], None]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.respond = respond
        self.closing = threading.Event()
        self.came: list[tuple[str, str]] = []
        self.headers: dict[str, str] = {}
        self.result = b""
        self.outlasted = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """A client that has hung up is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: StandIn

    def do_GET(self) -> None:
        self._note()

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers["Content-Length"]))
        self._note()

    def _note(self) -> None:
        self.server.came.append((self.command, self.path))
        self.server.headers = dict(self.headers.items())
        self.server.respond(self)

    def give(self, content: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def say(self, status: str, **more: str) -> None:
        self.give(json.dumps({"id": "7", "status": status} | more).encode())

    def log_message(self, *_: object) -> None:
        """Not on the test's output."""


@contextmanager
def serving(respond: Callable[[Any], None]) -> Iterator[StandIn]:
    server = StandIn(respond)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def running(hf: Any) -> Callable[[Any], None]:
    """A server that does what NDIF does: it runs the pass on weights of its own."""
    tree = Tree(hf)

    def respond(handler: Any) -> None:
        if handler.command == "POST":
            handler.server.result = _run(tree, _parts(handler)["blob"])
            handler.say("RECEIVED")
        elif handler.path.startswith("/response/"):
            handler.say("COMPLETED", data=f"{handler.server.url}/result")
        else:
            handler.give(handler.server.result)

    return respond


def _parts(handler: Any) -> dict[str, bytes]:
    kind = f"Content-Type: {handler.headers['Content-Type']}\r\n\r\n".encode()
    message = email.message_from_bytes(kind + handler.body)
    return {
        part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
        for part in message.get_payload()
    }


def _run(tree: Tree, blob: bytes) -> bytes:
    known = tree.root._remoteable_persistent_objects()
    tracer = import_module("nnsight.schema.request").RequestModel.deserialize(blob, known)
    tracing = import_module("nnsight.tracing.tracer")
    tracing.inc()
    try:
        with tree.attached():
            tracer.execute(tracer.info.code)
    finally:
        tracing.dec()
    content = io.BytesIO()
    torch.save({"found": tracer.info.frame.f_locals["found"]}, content)
    return content.getvalue()
