"""A report measures what `measure` does, keeps what fails apart, and goes on where it ended."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

import workbench as wb
from lenses import LogitLens
from tests.report.toys import BestNext, MeanState, Picky
from tests.test_passes import StateNorm
from tests.tiny import model
from workbench.report import Headway, report
from workbench.report.attempts import Attempt
from workbench.store.manifest import read_manifest

TEXTS = [f"prompt {n} " + "x" * (n % 5) for n in range(23)]
LENS = LogitLens(top_k=2)


def hooked() -> wb.TorchModel:
    return model("gpt2", torch.float32)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write(tmp_path / "texts.jsonl", [{"text": text} for text in TEXTS])


def rows_of(out: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(sorted(out.glob(f"shards/*/{name}.parquet")))


def test_rows_are_those_of_measure(tmp_path: Path, texts: Path) -> None:
    """Bit for bit where batches are the same, which are of one prompt here."""
    instruments = [LENS, Picky(), BestNext()]
    summary = report(hooked(), texts, instruments, tmp_path / "out", shard_size=5, batch_size=1)
    assert (summary.prompts, summary.shards, summary.left, summary.failed) == (23, 5, 0, 0)
    for result in wb.measure(hooked(), wb.PromptSet.read(texts), instruments, batch_size=1):
        kind = {one.name: type(one) for one in instruments}[result.instrument]
        expected = list(kind.rows(result.data))
        found = pl.read_parquet(
            tmp_path / "out" / "shards" / "*" / f"{kind.name}.parquet"
        ).to_dicts()
        for row in expected:
            if "top" in row:
                row["top"] = [{"token": t, "score": s} for t, s in row["top"]]
        assert found == expected
    tokens = pl.read_parquet(tmp_path / "out" / "shards" / "*" / "prompts.parquet")["tokens"].sum()
    assert tokens == sum(map(len, TEXTS))
    assert len(rows_of(tmp_path / "out", "logit_lens")) == 4 * tokens


@pytest.mark.parametrize("shard_size", [1, 4, 100])
def test_set_level_states_of_shards_merge(tmp_path: Path, texts: Path, shard_size: int) -> None:
    report(hooked(), texts, [MeanState()], tmp_path / "out", shard_size=shard_size)
    expected = MeanState()(hooked(), wb.PromptSet.read(texts)).data["mean"].values
    found = pl.read_parquet(tmp_path / "out" / "mean_state.parquet")
    assert found["layer"].to_list() == [0, 1, 2, 3]
    # The state is summed in float64: what is left is the model's own rounding in other batches.
    assert found["mean"].to_list() == pytest.approx(expected.tolist(), rel=1e-5)
    assert wb.Result.load(tmp_path / "out" / "mean_state.nc").data["mean"].values == pytest.approx(
        expected, rel=1e-5
    )
    states = [load_file(path) for path in tmp_path.glob("out/shards/*/mean_state.safetensors")]
    assert sum(int(state["count"]) for state in states) == 23


FAILING = [
    {"text": "fine", "id": "one"},
    {"text": "x" * 65, "id": "long"},
    {"text": "a bad one", "id": "picked"},
    {"text": "fine too", "id": "two", "target": "a"},
    {"text": "fine", "id": "off", "target": "ab"},
    {"text": "good", "id": "three"},
]


@pytest.mark.parametrize("shard_size", [1, 2, 3, 6])
def test_a_prompt_that_fails_is_kept_apart(tmp_path: Path, shard_size: int) -> None:
    """What one instrument refuses another one still measures, and set-level states hold the rest."""
    path = write(tmp_path / "p.jsonl", FAILING)
    out = tmp_path / "out"
    summary = report(hooked(), path, [LENS, Picky(), MeanState()], out, shard_size=shard_size)
    errors = [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]
    assert {(e["prompt"], e["instrument"]) for e in errors} == {
        *(("long", name) for name in ("logit_lens", "picky", "mean_state")),
        *(("off", name) for name in ("logit_lens", "picky", "mean_state")),
        ("picked", "picky"),
    }
    messages = {e["prompt"]: e["error"] for e in errors}
    assert "65 tokens: the model's context is 64" in messages["long"]
    assert "2 tokens" in messages["off"]
    assert "'bad' in 'a bad one'" in messages["picked"]
    assert summary.failed == 3
    assert list(dict.fromkeys(rows_of(out, "picky").prompt)) == ["one", "two", "three"]
    lens = list(dict.fromkeys(rows_of(out, "logit_lens").prompt))
    assert lens == ["one", "picked", "two", "three"]
    measured = [wb.Prompt(row["text"]) for row in FAILING if row["id"] in lens]
    expected = MeanState()(hooked(), measured).data["mean"].values.tolist()
    assert pl.read_parquet(out / "mean_state.parquet")["mean"].to_list() == pytest.approx(
        expected, rel=1e-5
    )
    prompts = rows_of(out, "prompts").set_index("prompt")
    assert prompts.tokens["one"] == 4
    assert pd.isna(prompts.tokens["long"])
    assert prompts.target["two"] == "a"


def test_a_failure_costs_the_other_prompts_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bad prompt of 64 is found by halving: in some 2 log2(64) passes, not in 64."""
    passes: list[int] = []
    measure = Attempt.measure

    def counted(self: Attempt, prompts: wb.PromptSet, instruments: Any) -> None:
        passes.append(len(prompts))
        measure(self, prompts, instruments)

    monkeypatch.setattr(Attempt, "measure", counted)
    texts = [f"fine {n}" for n in range(64)]
    texts[37] = "bad"
    report(hooked(), texts, [Picky()], tmp_path / "out", shard_size=64)
    assert len(passes) == 13
    assert rows_of(tmp_path / "out", "picky").prompt.nunique() == 63


def test_nothing_can_be_measured(tmp_path: Path) -> None:
    summary = report(hooked(), ["bad", "bad too"], [Picky(), MeanState()], tmp_path / "out")
    assert summary.failed == 2
    assert "no prompt could be measured" in (tmp_path / "out" / "report.html").read_text()
    assert not list(tmp_path.glob("out/shards/*/picky.parquet"))
    none = report(hooked(), ["x" * 99], [MeanState()], tmp_path / "none")
    assert none.failed == 1
    assert not (tmp_path / "none" / "mean_state.parquet").exists()


def test_a_stopped_report_goes_on(
    tmp_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, stop, seen = tmp_path / "out", threading.Event(), []

    def stop_in_the_second(headway: Headway) -> None:
        seen.append(headway)
        if headway.done > 5:
            stop.set()

    first = report(
        hooked(), texts, [LENS], out, shard_size=5, progress=stop_in_the_second, stop=stop
    )
    assert (first.left, first.interrupted, first.page) == (3, True, None)
    assert (seen[0].done, seen[0].total, seen[0].seconds_left) == (0, 23, None)
    kept = {path: path.stat().st_mtime_ns for path in out.glob("shards/*/*")}
    later: list[Headway] = []
    second = report(hooked(), texts, [LENS], out, shard_size=5, progress=later.append)
    assert (later[0].total, later[-1].done, later[-1].seconds_left) == (13, 13, 0)
    assert (second.left, second.interrupted, second.page) == (0, False, out / "report.html")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(rows_of(out, "logit_lens")) == 4 * sum(map(len, TEXTS))
    monkeypatch.setattr(Attempt, "measure", None)  # nothing is left to be measured
    assert report(hooked(), texts, [LENS], out, shard_size=5).left == 0


def test_an_interrupt_leaves_whole_shards_alone(tmp_path: Path, texts: Path) -> None:
    def interrupt(headway: Headway) -> None:
        if headway.done > 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        report(hooked(), texts, [LENS], tmp_path / "out", shard_size=5, progress=interrupt)
    assert [path.name for path in (tmp_path / "out" / "shards").iterdir()] == ["000000000"]


def test_parts_fill_one_folder(tmp_path: Path, texts: Path) -> None:
    out = tmp_path / "out"
    parts = [
        report(hooked(), texts, [LENS], out, shard=(number, 3), shard_size=5)
        for number in (2, 3, 1)
    ]
    assert [part.left for part in parts] == [3, 2, 0]
    assert [part.page is not None for part in parts] == [False, False, True]
    assert [part.interrupted for part in parts] == [False] * 3
    rows = rows_of(out, "logit_lens")
    assert len(rows) == len(rows.drop_duplicates(["prompt", "layer", "position"]))
    assert len(rows) == 4 * sum(map(len, TEXTS))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shard_size": 6}, "its shard_size is 5, here 6"),
        ({"instruments": [LogitLens(top_k=3)]}, "its instruments.logit_lens.top_k is 2, here 3"),
        ({"prompts": ["other"]}, "its prompts.count is 23, here 1"),
        ({"model": ("gpt2", torch.float64)}, 'its model.dtype is "float32", here "float64"'),
        ({"model": ("llama", torch.float32)}, "its model.family is"),
    ],
)
def test_another_run_is_refused(
    tmp_path: Path, texts: Path, change: dict[str, Any], message: str
) -> None:
    out = tmp_path / "out"
    report(hooked(), texts, [LENS], out, shard_size=5, shard=(1, 5))
    family, dtype = change.get("model", ("gpt2", torch.float32))
    with pytest.raises(wb.ResultError, match=message):
        report(
            model(family, dtype),
            change.get("prompts", texts),
            change.get("instruments", [LENS]),
            out,
            shard_size=change.get("shard_size", 5),
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"instruments": []}, "expected at least one"),
        ({"instruments": [LENS, LogitLens(top_k=1)]}, "each of them once"),
        ({"instruments": [LogitLens(top_k=300)]}, "the vocabulary has 257"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"shard_size": 0}, "shard size is 0"),
        ({"shard": (0, 2)}, "shard 0/2"),
        ({"shard": (3, 2)}, "shard 3/2"),
    ],
)
def test_what_holds_for_every_prompt_stops_before_any_work(
    tmp_path: Path, texts: Path, options: dict[str, Any], message: str
) -> None:
    given = {"instruments": [LENS]} | options
    with pytest.raises(wb.SettingError, match=message):
        report(hooked(), texts, out=tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_rejected_lines_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"text": "a"}\n{"text": ""}\nnonsense\n{"text": "b"}\n')
    out = tmp_path / "out"
    summary = report(hooked(), path, [LENS], out, skip_bad=True)
    rejected = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert [(one["line"], one["raw"]) for one in rejected] == [(2, '{"text": ""}'), (3, "nonsense")]
    assert "not JSON" in rejected[1]["reason"]
    assert (summary.prompts, summary.rejected, summary.failed) == (2, 2, 0)


def test_errors_name_the_line_of_the_file(tmp_path: Path) -> None:
    """Of unnamed prompts among bad and empty lines, over shards and over a run that goes on."""
    texts = ["fine", "bad", "fine", "x" * 65, "bad", "fine", "bad too"]
    good = [json.dumps({"text": text}) for text in texts]
    path, out = tmp_path / "p.jsonl", tmp_path / "out"
    path.write_text("\n".join(["nonsense", *good[:3], "", "[1]", *good[3:]]))
    for part in (2, 1):
        report(hooked(), path, [Picky()], out, shard=(part, 2), shard_size=3, skip_bad=True)
    errors = [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]
    assert [(one["prompt"], one["line"]) for one in errors] == [(1, 3), (3, 7), (4, 8), (6, 10)]
    raw = path.read_text().splitlines()
    assert [raw[one["line"] - 1] for one in errors] == [good[one["prompt"]] for one in errors]


def test_errors_of_prompts_of_no_file_have_no_line(tmp_path: Path) -> None:
    report(hooked(), ["bad"], [Picky()], tmp_path / "out")
    (error,) = (tmp_path / "out" / "errors.jsonl").read_text().splitlines()
    assert json.loads(error)["line"] is None


def test_a_folder_whose_errors_have_no_lines_is_finished(tmp_path: Path) -> None:
    """Shards were written without them once."""
    path, out = write(tmp_path / "p.jsonl", [{"text": "bad"}, {"text": "bad"}]), tmp_path / "out"
    report(hooked(), path, [Picky()], out, shard=(1, 2), shard_size=1)
    (old,) = out.glob("shards/*/errors.jsonl")
    fields = json.loads(old.read_text())
    del fields["line"]
    write(old, [fields])
    assert report(hooked(), path, [Picky()], out, shard_size=1).left == 0
    errors = [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]
    assert [one["line"] for one in errors] == [None, 2]


def test_the_manifest_says_what_was_run(tmp_path: Path, texts: Path) -> None:
    report(hooked(), texts, [LENS], tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    provenance = hooked().provenance()
    for key in ("weights", "tokenizer", "dtype", "engine"):
        assert manifest["model"][key] == provenance[key]
    assert manifest["instruments"] == {"logit_lens": json.loads(json.dumps(LENS.settings()))}
    assert manifest["recorded"]["model"]["device"] == "cpu"
    assert manifest["recorded"]["versions"]["torch"] == torch.__version__


@dataclass(frozen=True)
class Faulty(StateNorm):
    """Somebody's instrument with a mistake in it."""

    name: ClassVar[str] = "faulty"

    def measure(self, captures: wb.Captures) -> wb.Measured:
        raise TypeError("a mistake")


def test_a_faulty_instrument_is_an_error_and_the_others_go_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = report(hooked(), ["Rome", "x"], [LENS, Faulty()], out)
    assert summary.failed == 2
    errors = [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]
    assert {error["error"] for error in errors} == {"unexpected TypeError: a mistake"}
    (rows,) = out.glob("shards/*/logit_lens.parquet")
    assert set(pl.read_parquet(rows)["prompt"]) == {0, 1}


@dataclass(frozen=True)
class Doubtful(Picky):
    """An instrument that says how far it can be trusted."""

    def remarks(self, model: Any) -> list[str]:
        return [f"measured in {model.dtype}, <i>roughly</i>"]


def test_what_an_instrument_says_of_its_trust_is_on_the_page(tmp_path: Path) -> None:
    report(hooked(), ["Rome"], [Doubtful()], tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "measured in torch.float32, &lt;i&gt;roughly&lt;/i&gt;." in page
