"""Rows of a result whose instrument has no rows of its own."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from workbench.tidy import rows


def dataset() -> xr.Dataset:
    """Two prompts of two and one positions, three layers."""
    return xr.Dataset(
        {
            "norm": (("layer", "place"), np.arange(9.0).reshape(3, 3), {"unit": "1"}),
            "best": (
                ("layer", "place"),
                np.array([[7, 7, 8], [7, -1, 8], [7, 7, 7]]),
                {"unit": "token id"},
            ),
            "gap": (("place",), np.array([0.5, np.nan, np.inf]), {"unit": "nat"}),
            "mean": (("unit",), np.array([1.0, 2.0]), {"unit": "1"}),
            "vocabulary": (("token_id",), np.array([" a", " b"], dtype=object), {"unit": "text"}),
        },
        {
            "prompt": ("place", [0, 0, 1]),
            "position": ("place", [0, 1, 0]),
            "token": ("place", np.array(["x", "y", "z"], dtype=object)),
            "layer": [0, 1, 2],
            "token_id": [7, 8],
        },
    )


def test_every_cell_is_one_row_prompt_by_prompt() -> None:
    found = list(rows(dataset()))
    cells = [row for row in found if "norm" in row]
    assert len(cells) == 9
    assert cells[3] == {
        "prompt": 0,
        "position": 1,
        "token": "y",
        "layer": 0,
        "norm": 1.0,
        "best": " a",
    }
    assert cells[4]["best"] is None
    assert [row["prompt"] for row in cells] == [0] * 6 + [1] * 3
    assert {type(value) for value in cells[0].values()} <= {int, float, str}


def test_other_axes_get_rows_of_their_own_and_missing_numbers_are_none() -> None:
    found = list(rows(dataset()))
    assert [row["gap"] for row in found if "gap" in row] == [0.5, None, None]
    assert [row for row in found if "mean" in row] == [
        {"unit": 0, "mean": 1.0},
        {"unit": 1, "mean": 2.0},
    ]
    assert not any("vocabulary" in row for row in found)


@pytest.mark.parametrize("name", ["norm", "gap", "mean"])
def test_no_number_is_lost(name: str) -> None:
    data = dataset()
    values = [row[name] for row in rows(data) if row.get(name) is not None]
    finite = data[name].values[np.isfinite(data[name].values)]
    assert sorted(values) == sorted(finite.ravel().tolist())
