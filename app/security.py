"""Who may talk to the server: this machine, and others only with a token.

A page on the web can make a browser send requests to 127.0.0.1, under a name of its own (DNS
rebinding) or across sites. So the Host header must be one of ours, and the Origin, where there is
one, must be the Host.
"""

from __future__ import annotations

import secrets
from urllib.parse import urlencode, urlsplit

from flask import Flask, Response, abort, current_app, redirect, request

__all__ = ["LOOPBACK", "admit_others", "guard"]

LOOPBACK = ("127.0.0.1", "localhost")
ANY_ADDRESS = ("0.0.0.0", "::", "")
COOKIE = "workbench_token"
TOKEN = "WORKBENCH_TOKEN"
CALLBACK = "/_dash-update-component"
LARGEST = 32 * 2**20  # bytes of a request: an upload of 20 MB, as text, with room to spare

# Scripts and styles of the page stand in it, hence 'unsafe-inline'; nothing else may be loaded,
# and nothing may be sent, except from and to this server.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "frame-ancestors 'none'; form-action 'none'; base-uri 'none'; object-src 'none'"
)


def guard(server: Flask) -> None:
    """Lets only this machine's own pages in, and nothing out."""
    server.config["TRUSTED_HOSTS"] = list(LOOPBACK)
    server.config["MAX_CONTENT_LENGTH"] = LARGEST
    server.config[TOKEN] = None
    server.before_request(_admit)
    server.before_request(_require_callback)
    server.after_request(_confine)


def admit_others(server: Flask, host: str, token: str) -> None:
    """Lets in whoever brings the token to `host`.

    Under an address that stands for all of the machine's, any Host header passes: the cookie that
    carries the token belongs to the name it was set for, so no other name can use it.
    """
    server.config[TOKEN] = token
    trusted = None if host in ANY_ADDRESS else [*LOOPBACK, host]
    server.config["TRUSTED_HOSTS"] = trusted


def _admit() -> Response | None:
    if request.routing_exception is not None:
        raise request.routing_exception
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.host:
        abort(403, "requests from other sites are refused")
    token = current_app.config[TOKEN]
    if token is None or _same(request.cookies.get(COOKIE), token):
        return None
    if _same(request.args.get("token"), token):
        return _welcome(token)
    return abort(403, "open the address with its ?token=... that the server printed")


def _require_callback() -> None:
    """Refuses what is no callback before Dash trips over it."""
    if request.method != "POST" or not request.path.endswith(CALLBACK):
        return
    body = request.get_json(silent=True)
    fields = body if isinstance(body, dict) else {}
    if not isinstance(fields.get("output"), str) or not isinstance(fields.get("inputs"), list):
        abort(400, "this is no callback of the page: expected JSON with output and inputs")


def _welcome(token: str) -> Response:
    others = urlencode([(k, v) for k, v in request.args.items(multi=True) if k != "token"])
    answer = redirect(f"{request.path}?{others}" if others else request.path)
    answer.set_cookie(COOKIE, token, httponly=True, samesite="Lax")
    assert isinstance(answer, Response)
    return answer


def _same(given: str | None, token: str) -> bool:
    return given is not None and secrets.compare_digest(given.encode(), token.encode())


def _confine(answer: Response) -> Response:
    answer.headers["Content-Security-Policy"] = POLICY
    answer.headers["Referrer-Policy"] = "no-referrer"
    answer.headers["X-Content-Type-Options"] = "nosniff"
    return answer
