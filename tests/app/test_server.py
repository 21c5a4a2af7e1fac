"""Who is let in, what leaves, and where the server listens."""

from __future__ import annotations

import json
import re
import socket
from threading import Thread
from typing import Any
from urllib.request import urlopen

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.security import admit_others
from app.server import PortError, listen
from workbench.figures import graph_config

OURS = {"base_url": "http://127.0.0.1:8050"}


PAGES = ("/", "/jobs/", "/sets/", "/simulate/")


@pytest.fixture
def client(server: Flask) -> FlaskClient:
    return server.test_client()


@pytest.fixture
def shared(server: Flask) -> FlaskClient:
    admit_others(server, "0.0.0.0", "secret")
    return server.test_client()


@pytest.mark.parametrize("host", ["127.0.0.1:8050", "localhost:8050", "localhost"])
def test_this_machine_is_let_in(client: FlaskClient, host: str) -> None:
    assert client.get("/", base_url=f"http://{host}").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "192.168.0.7:8050"])
@pytest.mark.parametrize("path", [*PAGES, "/_dash-layout", "/assets/workbench.js"])
def test_a_foreign_host_header_is_refused(client: FlaskClient, host: str, path: str) -> None:
    assert client.get(path, base_url=f"http://{host}").status_code == 400


def test_a_request_from_another_site_is_refused(client: FlaskClient) -> None:
    for origin, status in (("http://evil.example", 403), ("http://127.0.0.1:8050", 200)):
        for path in PAGES:
            answer = client.get(f"{path}_dash-layout", headers={"Origin": origin}, **OURS)
            assert answer.status_code == status
    assert client.get("/", headers={"Origin": "null"}, **OURS).status_code == 403


@pytest.mark.parametrize("path", PAGES)
def test_nothing_may_be_loaded_from_elsewhere(client: FlaskClient, path: str) -> None:
    answer = client.get(path, **OURS)
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert not re.findall(r'(?:src|href)="(?!/)', answer.text)
    assert '<html lang="en">' in answer.text


@pytest.mark.parametrize("path", PAGES)
def test_scripts_that_no_page_uses_are_not_loaded(client: FlaskClient, path: str) -> None:
    scripts = re.findall(r'<script src="([^"]+)"', client.get(path, **OURS).text)
    names = " ".join(scripts)
    assert "react-dom" in names
    assert "regenerator-runtime" in names  # of the polyfill, what Dash's bundles need
    assert "polyfill@" not in names
    assert "dash_table" not in names


def test_others_need_the_token(shared: FlaskClient) -> None:
    assert shared.get("/", base_url="http://10.0.0.5:8050").status_code == 403
    assert shared.get("/?token=wrong", base_url="http://10.0.0.5:8050").status_code == 403
    assert shared.get("/assets/workbench.js", base_url="http://10.0.0.5:8050").status_code == 403


def test_the_token_becomes_a_cookie_and_leaves_the_address(shared: FlaskClient) -> None:
    there = "http://10.0.0.5:8050"
    answer = shared.get("/?token=secret&layer=3", base_url=there)
    assert answer.status_code == 302
    assert answer.headers["Location"] == "/?layer=3"
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert shared.get("/", base_url=there).status_code == 200


def graphs(node: Any) -> list[dict[str, Any]]:
    if isinstance(node, list):
        return [graph for child in node for graph in graphs(child)]
    if not isinstance(node, dict):
        return []
    here = [node["props"]] if node.get("type") == "Graph" else []
    return here + [graph for child in node.values() for graph in graphs(child)]


def test_no_graph_can_be_sent_anywhere(client: FlaskClient) -> None:
    answer = client.get("/_dash-layout", **OURS)
    found = graphs(json.loads(answer.text))
    assert len(found) >= 5
    for graph in found:
        assert graph["config"]["showSendToCloud"] is False
        assert graph["config"]["plotlyServerURL"] == ""
    assert graph_config()["showSendToCloud"] is False
    assert len(answer.data) < 100_000


@pytest.mark.parametrize("path", PAGES)
def test_no_page_has_a_field_for_what_only_the_command_line_may_say(
    client: FlaskClient, path: str
) -> None:
    layout = client.get(f"{path}_dash-layout", **OURS).text
    for name in ("trust", "remote_code", "model_root", "model-root"):
        assert name not in layout.lower()
    assert len(layout) < 100_000


def test_a_request_larger_than_an_upload_is_refused(client: FlaskClient) -> None:
    server = client.application
    server.config["MAX_CONTENT_LENGTH"] = 1000
    sent = {"data": b"x" * 1001, "content_type": "application/json"}
    answer = client.post("/sets/_dash-update-component", **sent, **OURS)
    assert answer.status_code == 413


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"output": 1, "inputs": []}', '{"output": "x"}'])
def test_a_request_that_is_no_callback_is_refused(client: FlaskClient, body: str) -> None:
    for path in PAGES:
        url = f"{path}_dash-update-component"
        answer = client.post(url, data=body, content_type="application/json", **OURS)
        assert answer.status_code == 400
        assert "no callback of the page" in answer.text


def test_never_debug(server: Flask) -> None:
    assert server.debug is False
    for path in PAGES:
        assert '"ui":false' in server.test_client().get(path, **OURS).text


def test_listens_on_this_machine_alone_unless_told(server: Flask) -> None:
    listening = listen(server, port=0)
    try:
        assert listening.socket.getsockname()[0] == "127.0.0.1"
        thread = Thread(target=listening.serve_forever)
        thread.start()
        with urlopen(f"http://127.0.0.1:{listening.port}/") as answer:
            assert answer.status == 200
        listening.shutdown()
        thread.join()
    finally:
        listening.server_close()


def test_another_host_needs_a_token(server: Flask) -> None:
    with pytest.raises(ValueError, match="give a token"):
        listen(server, host="0.0.0.0", port=0)


def test_a_taken_port_is_named(server: Flask) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortError, match=f"port {port} is in use") as caught:
            listen(server, port=port)
    assert "\n" not in str(caught.value)


def test_a_port_that_is_none_is_refused(server: Flask) -> None:
    with pytest.raises(PortError, match=r"port 99999 is none: expected 0\.\.65535"):
        listen(server, port=99999)
