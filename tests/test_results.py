"""Results: saving, loading, citing, drawing, and showing themselves in a notebook."""

import json
from pathlib import Path

import pandas as pd
import pytest
import xarray as xr

import workbench as wb
from lenses import LogitLens
from tests.tiny import model
from workbench.instrument import find, names


@pytest.fixture(scope="module")
def result() -> wb.Result:
    prompts = [wb.Prompt("a\0b é", id="x", target="R"), wb.Prompt("<b>", id="y")]
    return LogitLens(top_k=3)(model("gpt2"), prompts)


def test_saved_and_loaded_results_are_identical(result: wb.Result, tmp_path: Path) -> None:
    again = wb.Result.load(result.save(tmp_path / "lens.nc"))
    xr.testing.assert_identical(again.data, result.data)
    assert again.provenance == result.provenance
    assert again.rows() == result.rows()
    assert [path.name for path in tmp_path.iterdir()] == ["lens.nc"]


def test_a_saved_result_is_readable_without_the_project(result: wb.Result, tmp_path: Path) -> None:
    data = xr.open_dataset(result.save(tmp_path / "lens.nc"), engine="h5netcdf")
    top = data.vocabulary.sel(token_id=data.top_id.sel(site="resid_post", layer=3, k=1))
    assert len(top) == data.sizes["place"]
    assert data.entropy.attrs["unit"] == "nat"
    data.close()


def test_rows_survive_parquet(result: wb.Result, tmp_path: Path) -> None:
    rows = result.rows()
    frame = pd.read_parquet(result.save(tmp_path / "rows.parquet"))
    assert list(frame.columns) == list(rows[0])
    assert len(frame) == len(rows)
    assert frame.top[0][0] == dict(zip(("token", "score"), rows[0]["top"][0], strict=True))
    assert frame.target_rank.dropna().between(1, 257).all()


def test_rows_as_json_and_csv(result: wb.Result, tmp_path: Path) -> None:
    assert json.loads(result.save(tmp_path / "rows.json").read_text()) == result.rows()
    assert len(pd.read_csv(result.save(tmp_path / "rows.csv"))) == len(result.rows())


@pytest.mark.parametrize("suffix", ["html", "svg", "png", "pdf"])
def test_figures_are_saved_by_suffix(result: wb.Result, tmp_path: Path, suffix: str) -> None:
    begins = {"html": b"<!doctype html>", "svg": b"<svg", "png": b"\x89PNG", "pdf": b"%PDF"}[suffix]
    one = wb.Result(result.data.isel(place=slice(0, 4)))
    written = one.save(tmp_path / f"lens.{suffix}").read_bytes()
    assert written.startswith(begins)
    assert [path.name for path in tmp_path.iterdir()] == [f"lens.{suffix}"]


def test_saving_touches_no_other_file(result: wb.Result, tmp_path: Path) -> None:
    other = tmp_path / "lens.part.nc"
    other.write_text("mine")
    result.save(tmp_path / "lens.nc")
    assert other.read_text() == "mine"


def test_provenance(result: wb.Result) -> None:
    made_of = result.provenance
    assert made_of["settings"]["top_k"] == 3
    assert made_of["model"]["family"] == "gpt2"
    assert len(made_of["model"]["weights"]) == 16
    assert made_of["prompts"][1]["ids"] == [27, 65, 29]
    assert {"torch", "transformers", "python"} <= set(made_of["versions"])


def test_cite(result: wb.Result) -> None:
    text = result.cite()
    assert "nostalgebraist" in text
    assert "top_k=3" in text
    assert "@misc{" in text


def test_plot_draws_with_the_instruments_figure(result: wb.Result) -> None:
    import plotly.graph_objects as go

    assert isinstance(result.plot(theme="dark", prompt="x"), go.Figure)


def test_notebook_bundle_is_plain_and_offline(result: wb.Result) -> None:
    bundle = result._repr_mimebundle_()
    assert set(bundle) == {"application/vnd.plotly.v1+json", "text/html", "text/plain"}
    drawn = json.loads(json.dumps(bundle))["application/vnd.plotly.v1+json"]
    assert drawn["data"]
    assert drawn["config"]["showSendToCloud"] is False
    assert "<b>" not in bundle["text/html"]
    assert "http" not in bundle["text/html"]
    assert "logit_lens of" in bundle["text/plain"]


def test_bad_files(result: wb.Result, tmp_path: Path) -> None:
    with pytest.raises(wb.ResultError, match="expected a suffix of .nc, .parquet"):
        result.save(tmp_path / "lens.pkl")
    with pytest.raises(wb.ResultError, match="no folder"):
        result.save(tmp_path / "none" / "lens.nc")
    (tmp_path / "dir.nc").mkdir()
    with pytest.raises(wb.ResultError, match="dir.nc cannot be written: it is a folder"):
        result.save(tmp_path / "dir.nc")
    with pytest.raises(wb.ResultError, match="no result file"):
        wb.Result.load(tmp_path / "none.nc")
    (tmp_path / "bad.nc").write_text("not a file of numbers")
    with pytest.raises(wb.ResultError, match="is no netCDF file"):
        wb.Result.load(tmp_path / "bad.nc")
    xr.Dataset({"a": 1}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(wb.ResultError, match="this is no saved result"):
        wb.Result.load(tmp_path / "other.nc")


def test_instruments_are_found_by_name() -> None:
    assert find("logit_lens") is LogitLens
    assert "logit_lens" in names()
    with pytest.raises(
        wb.SettingError, match="unknown instrument 'tarot': expected one of .*logit_lens"
    ):
        find("tarot")
