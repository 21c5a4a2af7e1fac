"""The two bundled models, each measured once a session."""

from typing import Any

import pytest
import torch
from workbench.atlas import model_path
from workbench.atlas.measure import Subject, load, table
from workbench.atlas.trace import trace


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def atlas(one_thread: None) -> Subject:
    return load(model_path("atlas"))


@pytest.fixture(scope="session")
def bag(one_thread: None) -> Subject:
    return load(model_path("atlas-bag"))


@pytest.fixture(scope="session")
def atlas_table(atlas: Subject) -> dict[str, Any]:
    return table(atlas)


@pytest.fixture(scope="session")
def bag_table(bag: Subject) -> dict[str, Any]:
    return table(bag)


@pytest.fixture(scope="session")
def atlas_trace(atlas: Subject) -> dict[str, Any]:
    return trace(atlas)


@pytest.fixture(scope="session")
def bag_trace(bag: Subject) -> dict[str, Any]:
    return trace(bag)
