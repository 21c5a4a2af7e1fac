"""Passes that travel: the local simulation, NDIF played by a server here, and every way to fail."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import cloudpickle.cloudpickle
import pytest
import torch
import transformers

import workbench as wb
from lenses import LogitLens
from tests.models.ndif_stand_in import StandIn, running, serving
from tests.models.test_engine import snapshot
from tests.models.test_nnsight import CLOSE, assert_equal, loss
from tests.tiny import CONFIGS, LAYERS, TEXTS, hf_model, model, tokenizer
from workbench.models.nnsight.contained import nnsight
from workbench.models.nnsight.loading import ndif_model
from workbench.models.nnsight.ndif import Ndif
from workbench.models.nnsight.remote import NdifModel, SimulatedModel

SITES = ["resid_pre", "resid_mid", "attn_out", "mlp_act", "z", "resid_post", "logits"]
SECONDS = 20.0  # for a server that answers; no test waits for it


def plus_places(old: torch.Tensor, places: wb.Places) -> torch.Tensor:
    """A function of a module that no server has, which uses more of the places than their numbers."""
    return old + len(places)


EDITS = [
    wb.Edit.add(("resid_mid", 2), torch.ones(16)),
    wb.Edit(("attn_out", 1), plus_places, positions="last"),
]


# --- remote="local" --------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "bloom", "granite", "opt"])
def test_the_simulation_gives_the_same(family: str) -> None:
    expected, fresh = model(family), hf_model(family)
    before = snapshot(fresh)
    hooked = wb.load(fresh, expected.tokenizer, remote="local")
    assert isinstance(hooked, SimulatedModel)
    batch = hooked.batch(TEXTS, "left")
    assert_equal(hooked.capture(batch, SITES), expected.capture(batch, SITES))
    assert_equal(hooked.intervene(batch, EDITS), expected.intervene(batch, EDITS))
    assert_equal(hooked.grad(batch, loss, SITES[:-1]), expected.grad(batch, loss, SITES[:-1]))
    states = torch.randn(*batch.ids.shape, 16, dtype=torch.float64)
    for layer in range(LAYERS + 1):
        assert_equal(hooked.tail(batch, layer, states), expected.tail(batch, layer, states))
    assert snapshot(fresh) == before
    assert all("_persistent_id" not in module.__dict__ for module in fresh.modules())


def test_sending_leaves_the_pickling_of_others_as_it_was() -> None:
    before = set(cloudpickle.cloudpickle._PICKLE_BY_VALUE_MODULES)
    wb.load(hf_model("gpt2"), tokenizer(), remote="local").capture("abc", ["embed"])
    assert before == cloudpickle.cloudpickle._PICKLE_BY_VALUE_MODULES


def test_what_cannot_travel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hooked = wb.load(hf_model("gpt2"), tokenizer(), remote="local")
    (tmp_path / "kept_at_home.py").write_text("def twice(old, _):\n    return old * 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    edit = wb.Edit(("attn_out", 1), import_module("kept_at_home").twice)
    with pytest.raises(wb.UnsupportedError, match="could not be run elsewhere.*nnsight.register"):
        hooked.intervene("abc", [edit])


@pytest.mark.parametrize(("engine", "remote"), [("torch", True), ("torch", "local"), (None, "far")])
def test_remote_runs_on_nnsight_alone(engine: str | None, remote: Any) -> None:
    with pytest.raises(wb.UnsupportedError, match="expected True or 'local', on 'nnsight'"):
        wb.load(hf_model("gpt2"), tokenizer(), engine=engine, remote=remote)


# --- remote=True ------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NDIF_API_KEY", "secret-key")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def far(server: StandIn, monkeypatch: pytest.MonkeyPatch, seconds: float = SECONDS) -> NdifModel:
    """A model without weights whose passes go to `server`."""
    monkeypatch.setenv("NDIF_HOST", server.url)
    name, settings = CONFIGS["gpt2"]
    config = getattr(transformers, name)(**settings, dtype=torch.float64)
    monkeypatch.setattr(
        "workbench.models.nnsight.loading.described", lambda *_: (config, tokenizer(), "", {})
    )
    return ndif_model("org/tiny", seconds=seconds)


def test_passes_on_ndif_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = model("gpt2")
    with serving(running(hf_model("gpt2"))) as server:
        hooked = far(server, monkeypatch)
        assert next(hooked.hf.parameters()).is_meta
        batch = hooked.batch(TEXTS, "left")
        assert_equal(hooked.capture(batch, SITES), expected.capture(batch, SITES))
        assert_equal(hooked.intervene(batch, EDITS), expected.intervene(batch, EDITS))
        assert_equal(hooked.grad(batch, loss, SITES[:-1]), expected.grad(batch, loss, SITES[:-1]))
        states = torch.randn(5, 16, dtype=torch.float64)
        torch.testing.assert_close(hooked.readout(states), expected.readout(states), **CLOSE)
        found, whole = LogitLens()(hooked, TEXTS), LogitLens()(expected, TEXTS)
    torch.testing.assert_close(
        torch.from_numpy(found.data["entropy"].values),
        torch.from_numpy(whole.data["entropy"].values),
        rtol=0,
        atol=1e-6,
    )
    assert found.provenance["model"]["weights"] == "on NDIF, org/tiny, revision main"


def test_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    answer = running(hf_model("gpt2"))

    def respond(handler: Any) -> None:
        if handler.command == "POST":
            assert handler.headers["ndif-api-key"] == "secret-key"
            sent.append(handler.body)
        else:
            assert handler.path != "/result" or "ndif-api-key" not in handler.headers
        answer(handler)

    with serving(respond) as server:
        far(server, monkeypatch).capture("abc", ["resid_post", "logits"])
    (body,) = sent
    assert b"secret-key" not in body
    envelope = json.loads(body.split(b"\r\n\r\n")[1].split(b"\r\n")[0])
    wrapper, key = envelope["model_key"].split(":", 1)
    assert wrapper == "nnsight.modeling.transformers.TransformersModel"
    assert json.loads(key) == {"repo_id": "org/tiny", "revision": None, "task": "text-generation"}
    assert len(body) < 50_000


def unwelcome(handler: Any) -> None:
    handler.give(b'{"detail": "invalid key"}', 401)


def overloaded(handler: Any) -> None:
    handler.give(b'{"detail": "no room"}', 503)


def hanging(handler: Any) -> None:
    handler.server.closing.wait()


def dripping(handler: Any) -> None:
    """Sends its answer so slowly that no single wait is long."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    _drip(handler)


def dripping_without_length(handler: Any) -> None:
    """What is cut from it looks whole, as the end of the connection is the end of the answer."""
    handler.send_response(200)
    handler.end_headers()
    _drip(handler)


def dripping_headers(handler: Any) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nServer: ")
    _drip(handler)


def _drip(handler: Any) -> None:
    """Until the client hangs up, which makes a write fail."""
    for _ in range(100):
        if handler.server.closing.wait(0.02):
            return
        handler.wfile.write(b"x")
    handler.server.outlasted = True


def dropping(handler: Any) -> None:
    handler.connection.close()


def foreign(handler: Any) -> None:
    handler.give(b"<html>a page</html>")


def failing(handler: Any) -> None:
    handler.say("ERROR", description="Traceback ...\nValueError: out of memory")


def never_done(handler: Any) -> None:
    handler.say("RUNNING")


def garbled(handler: Any) -> None:
    handler.say("COMPLETED", data=f"{handler.server.url}/result")


FAILURES: dict[str, tuple[Callable[[Any], None], str]] = {
    "unwelcome": (unwelcome, r"refused the key \(401\): check NDIF_API_KEY"),
    "overloaded": (overloaded, r"answered 503 \(.*no room.*\): try again later, or see whether"),
    "hanging": (
        hanging,
        r"gave no answer within 0.2 s: try again later, or .* more remote_seconds",
    ),
    **{
        respond.__name__: (respond, r"gave no answer within 0.2 s: try again later")
        for respond in (dripping, dripping_without_length, dripping_headers)
    },
    "dropping": (dropping, r"cannot be reached \(.*\): check the network and NDIF_HOST"),
    "foreign": (foreign, r"did not answer as NDIF does: check NDIF_HOST"),
    "failing": (failing, r"could not run org/tiny: ValueError: out of memory"),
    "never_done": (never_done, r"gave no answer within 0.2 s"),
    "garbled": (garbled, r"is no result \(.*\): try again later"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_server_that_fails(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    respond, message = FAILURES[name]
    with serving(respond) as server:
        hooked = far(server, monkeypatch, seconds=0.2 if "0.2" in message else SECONDS)
        with pytest.raises(wb.ModelError, match=message) as caught:
            hooked.capture("abc", ["embed"])
        assert "\n" not in str(caught.value)
        assert "secret-key" not in str(caught.value)
        assert not hooked._tree.running
        assert all("forward" not in module.__dict__ for module in hooked.hf.modules())
    assert not server.outlasted


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(unwelcome) as server:
        hooked = far(server, monkeypatch)
    with pytest.raises(wb.ModelError, match="cannot be reached"):
        hooked.capture("abc", ["embed"])


def test_code_in_a_result_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return sys.setrecursionlimit, (123456,)

    content = io.BytesIO()
    torch.save({"found": {0: Trap()}}, content)

    def respond(handler: Any) -> None:
        if handler.path == "/result":
            handler.give(content.getvalue())
        else:
            handler.say("COMPLETED", data=f"{handler.server.url}/result")

    with serving(respond) as server, pytest.raises(wb.ModelError, match="is no result"):
        far(server, monkeypatch).capture("abc", ["embed"])
    assert sys.getrecursionlimit() != 123456


def test_a_job_that_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    answer, asked = running(hf_model("gpt2")), []

    def respond(handler: Any) -> None:
        asked.append(handler.path)
        if asked.count("/response/7") == 1:
            handler.give(b"", 404)
        elif asked.count("/response/7") == 2:
            handler.say("QUEUED")
        else:
            answer(handler)

    def at_once(hooked: NdifModel) -> Ndif:
        return replace(Ndif("org/tiny", None, {}, SECONDS), pause=0.0)

    monkeypatch.setattr(NdifModel, "_backend", at_once)
    with serving(respond) as server:
        found = far(server, monkeypatch).capture("abc", ["logits"])
    assert_equal(found, model("gpt2").capture("abc", ["logits"]))


def test_without_a_key_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NDIF_API_KEY")
    monkeypatch.setattr(nnsight().CONFIG.API, "APIKEY", None)
    with serving(unwelcome) as server:
        monkeypatch.setenv("NDIF_HOST", server.url)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        with pytest.raises(wb.ModelError, match="needs a key for NDIF: set NDIF_API_KEY") as caught:
            wb.load("org/tiny", engine="nnsight", remote=True)
        assert server.came == []
    assert "\n" not in str(caught.value)


def test_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(wb.ModelError, match="its configuration cannot be had from the hub"):
        wb.load("org/tiny", remote=True)


def test_what_ndif_cannot_have_is_refused(tmp_path: Path) -> None:
    for given in (None, "atlas", str(tmp_path), tmp_path, hf_model("gpt2")):
        with pytest.raises(wb.UnsupportedError, match="NDIF serves models of the hub"):
            wb.load(given, tokenizer(), remote=True)


def test_what_ndif_does_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(running(hf_model("gpt2"))) as server:
        hooked = far(server, monkeypatch)
        states = torch.zeros(1, 16, dtype=torch.float64, requires_grad=True)
        with pytest.raises(wb.UnsupportedError, match="no gradient through the last step on NDIF"):
            hooked.readout(states)
        lock = wb.Edit(("attn_out", 1), lambda old, _: old + hooked.lock)
        with pytest.raises(wb.UnsupportedError, match="cannot be sent to NDIF"):
            hooked.intervene("abc", [lock])


def test_an_nnsight_model_without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    import nnsight

    held = nnsight.TransformersModel(hf_model("gpt2").train(), tokenizer=tokenizer())
    held.repo_id = "org/tiny"
    with serving(running(hf_model("gpt2"))) as server:
        monkeypatch.setenv("NDIF_HOST", server.url)
        hooked = wb.load(held, remote=True)
        assert isinstance(hooked, NdifModel)
        assert hooked.name == "org/tiny"
        assert ("POST", "/request") in server.came
    assert held._module.training  # as the caller left it
