"""Who is let in, what leaves, and where the server listens."""

from __future__ import annotations

import json
import re
import socket
from threading import Thread
from typing import Any
from urllib.request import urlopen

import pytest
from flask.testing import FlaskClient

import workbench as wb
from app.security import admit_others
from app.server import PortError, create_app, listen
from workbench.figures import graph_config

OURS = {"base_url": "http://127.0.0.1:8050"}


@pytest.fixture
def client() -> FlaskClient:
    return create_app({"atlas": wb.load}).server.test_client()


@pytest.fixture
def shared() -> FlaskClient:
    server = create_app({"atlas": wb.load}).server
    admit_others(server, "0.0.0.0", "secret")
    return server.test_client()


@pytest.mark.parametrize("host", ["127.0.0.1:8050", "localhost:8050", "localhost"])
def test_this_machine_is_let_in(client: FlaskClient, host: str) -> None:
    assert client.get("/", base_url=f"http://{host}").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "192.168.0.7:8050"])
@pytest.mark.parametrize("path", ["/", "/_dash-layout", "/assets/workbench.js"])
def test_a_foreign_host_header_is_refused(client: FlaskClient, host: str, path: str) -> None:
    assert client.get(path, base_url=f"http://{host}").status_code == 400


def test_a_request_from_another_site_is_refused(client: FlaskClient) -> None:
    for origin, status in (("http://evil.example", 403), ("http://127.0.0.1:8050", 200)):
        answer = client.get("/_dash-layout", headers={"Origin": origin}, **OURS)
        assert answer.status_code == status
    assert client.get("/", headers={"Origin": "null"}, **OURS).status_code == 403


def test_nothing_may_be_loaded_from_elsewhere(client: FlaskClient) -> None:
    answer = client.get("/", **OURS)
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert not re.findall(r'(?:src|href)="(?!/)', answer.text)
    assert '<html lang="en">' in answer.text


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
    assert len(found) == 4
    for graph in found:
        assert graph["config"]["showSendToCloud"] is False
        assert graph["config"]["plotlyServerURL"] == ""
    assert graph_config()["showSendToCloud"] is False
    assert len(answer.data) < 100_000


def test_never_debug() -> None:
    app = create_app({"atlas": wb.load})
    assert app.server.debug is False
    page = app.server.test_client().get("/", **OURS).text
    assert '"ui":false' in page


def test_listens_on_this_machine_alone_unless_told() -> None:
    server = listen(create_app({"atlas": wb.load}), port=0)
    try:
        assert server.socket.getsockname()[0] == "127.0.0.1"
        thread = Thread(target=server.serve_forever)
        thread.start()
        with urlopen(f"http://127.0.0.1:{server.port}/") as answer:
            assert answer.status == 200
        server.shutdown()
        thread.join()
    finally:
        server.server_close()


def test_another_host_needs_a_token() -> None:
    with pytest.raises(ValueError, match="give a token"):
        listen(create_app({"atlas": wb.load}), host="0.0.0.0", port=0)


def test_a_taken_port_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortError, match=f"port {port} is in use") as caught:
            listen(create_app({"atlas": wb.load}), port=port)
    assert "\n" not in str(caught.value)


def test_an_app_without_models_is_refused() -> None:
    with pytest.raises(ValueError, match="no models"):
        create_app({})


def test_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(PortError, match=r"port 99999 is none: expected 0\.\.65535"):
        listen(create_app({"atlas": wb.load}), port=99999)
