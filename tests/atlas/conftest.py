"""The two bundled models, each measured once a session."""

from typing import Any

import pytest
import torch

from workbench.atlas import model_path
from workbench.atlas.measure import Loaded, load, table
from workbench.atlas.trace import trace


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def atlas(one_thread: None) -> Loaded:
    return load(model_path("atlas"))


@pytest.fixture(scope="session")
def bag(one_thread: None) -> Loaded:
    return load(model_path("atlas-bag"))


@pytest.fixture(scope="session")
def atlas_table(atlas: Loaded) -> dict[str, Any]:
    return table(atlas)


@pytest.fixture(scope="session")
def bag_table(bag: Loaded) -> dict[str, Any]:
    return table(bag)


@pytest.fixture(scope="session")
def atlas_trace(atlas: Loaded) -> dict[str, Any]:
    return trace(atlas)


@pytest.fixture(scope="session")
def bag_trace(bag: Loaded) -> dict[str, Any]:
    return trace(bag)
