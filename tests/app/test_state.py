"""What the page keeps in its stores."""

from __future__ import annotations

import json

import pytest

from app.state import Asked, Pending, Run

ASKED = Asked("atlas", "The city of", " Paris", "")


def test_a_run_survives_the_browser() -> None:
    run = Run(ASKED, 6, 3, "abc", "id", {"logit_lens": "key"}, {"x": "why"}, {"a": {"b": "1"}})
    assert Run.of(json.loads(json.dumps(run.stored()))) == run


def test_a_pending_job_survives_the_browser() -> None:
    pending = Pending(7, ASKED, {"a": {"b": "1"}}, {"layer": 3})
    assert Pending.of(json.loads(json.dumps(pending.stored()))).asked == ASKED


@pytest.mark.parametrize(
    ("state", "going"),
    [("queued", True), ("running", True), ("done", False), ("lost", False), ("cancelled", False)],
)
def test_a_job_goes_on_until_it_has_ended(state: str, going: bool) -> None:
    assert Pending(7, ASKED, {}, {}, state=state).going is going


def test_a_token_that_is_empty_is_none() -> None:
    assert ASKED.prompt().target == " Paris"
    assert ASKED.prompt().foil is None
