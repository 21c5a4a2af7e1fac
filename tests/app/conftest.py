"""One desk for the tests of this folder; starting its worker takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask

from app.server import create_app
from workbench.jobs import Desk, ModelSpec


@pytest.fixture(scope="package")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    models = {"atlas": ModelSpec("atlas"), "absent": ModelSpec("/no/such/folder")}
    home = tmp_path_factory.mktemp("home")
    with Desk(home, models, devices=["cpu"], preload="atlas", threads=1) as desk:
        yield desk


@pytest.fixture
def server(desk: Desk) -> Flask:
    return create_app(desk)
