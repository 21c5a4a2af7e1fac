"""`workbench run` from a shell's point of view: rows, files, one-line errors and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner, Result

import workbench as wb
from app.cli import cli
from tests.tiny import hf_model, tokenizer

PARIS = ["run", "logit_lens", "--prompt", "The capital of France is", "--target", " Paris"]


def invoke(*args: str) -> Result:
    return CliRunner().invoke(cli, list(args))


@pytest.fixture
def llama_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "my-llama"
    hf_model("llama", torch.float32).save_pretrained(folder)
    tokenizer(bos=True).save_pretrained(folder)
    return folder


def own_logprobs(model: wb.TorchModel, text: str) -> torch.Tensor:
    """[position, V] log-probabilities of the Hugging Face model, without the workbench."""
    ids = torch.tensor([model.encode(wb.Prompt(text)).ids])
    with torch.no_grad():
        return model.hf(ids).logits[0].log_softmax(-1)


def test_json_rows_end_with_the_models_own_log_probabilities() -> None:
    done = invoke(*PARIS, "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    model = wb.load()
    own = own_logprobs(model, "The capital of France is")
    (paris,) = model.tokenizer(" Paris")["input_ids"]
    last = [row for row in rows if row["layer"] == model.n_layers]
    assert len(last) == own.shape[0]
    for row in last:
        assert row["target_logprob"] == pytest.approx(float(own[row["position"], paris]), abs=1e-5)
        assert row["top_logprob"] == pytest.approx(float(own[row["position"]].max()), abs=1e-5)
    assert len(rows) == (model.n_layers + 1) * own.shape[0]


def test_a_llama_folder_with_a_target_id(llama_folder: Path) -> None:
    done = invoke(
        "run", "logit_lens", "--model", str(llama_folder), "--prompt", "abc", "--target-id", "65", "--json"
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    own = own_logprobs(wb.load(llama_folder), "abc")
    last = [row for row in json.loads(done.stdout) if row["layer"] == 3]
    for row in last:
        assert row["target_logprob"] == pytest.approx(float(own[row["position"], 65]), abs=1e-5)


def test_a_prompts_file_and_every_output(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(
        '{"text": "The capital of France is", "id": "fr", "target": " Paris"}\n{"text": "x"}\n'
    )
    for suffix in ("nc", "parquet", "csv", "json", "html"):
        out = tmp_path / f"out.{suffix}"
        done = invoke(
            "run", "logit_lens", "--prompts", str(file), "--set", "positions=last", "--out", str(out)
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        assert out.stat().st_size > 0
    frame = pd.read_parquet(tmp_path / "out.parquet")
    assert set(frame.prompt) == {"fr", "1"}
    assert wb.Result.load(tmp_path / "out.nc").data.sizes["place"] == 2


def test_settings_and_table() -> None:
    done = invoke(
        *PARIS, "--set", "top_k=2", "--set", "sites=resid_post,mlp_out", "--set", "positions=last"
    )
    assert done.exit_code == 0, done.output
    assert "'mlp_out'" in done.stdout
    assert "' Paris'" in done.stdout


def test_a_table_of_rows_whose_top_is_one_token() -> None:
    done = invoke(
        "run", "causal_trace", *PARIS[2:], "--subject", "France",
        "--set", "samples=2", "--set", "layers=4", "--set", "positions=last",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "'resid_post'" in done.stdout
    assert "' Paris'" in done.stdout


def test_labels_of_built_in_makers(tmp_path: Path) -> None:
    """A made set brings its own; `labels` gives them to prompts that have none."""
    file = tmp_path / "p.jsonl"
    texts = [f"We saw the {w}{s}" for w in ("key", "table", "river", "chair") for s in ("", "s")]
    file.write_text("".join(f"{json.dumps({'text': text})}\n" for text in texts))
    few = ["--set", "layers=2", "--set", "k=1", "--set", "permutations=0", "--json"]
    made = invoke("run", "sparse_probe", "--prompts", "made:tenses", *few)
    assert json.loads(made.stdout)[0]["examples"] == 168
    given = invoke("run", "sparse_probe", "--prompts", str(file), "--set", "labels=plurals", *few)
    (row,) = json.loads(given.stdout)
    assert (row["feature"], row["positives"], row["examples"]) == ("plural", 4, 8)
    unknown = invoke("run", "sparse_probe", "--prompts", "made:nosuch", *few)
    assert unknown.exit_code == 2
    assert "expected made: and one of atlas_facts, plurals" in unknown.stderr


def test_what_a_result_says_of_its_trust_is_on_stderr_beside_data(tmp_path: Path) -> None:
    half = ["run", "backward_lens", *PARIS[2:], "--dtype", "bfloat16", "--set", "controls=false"]
    done = invoke(*half, "--json", "--out", str(tmp_path / "shift.csv"))
    assert json.loads(done.stdout)[0]["map"] == "ff1"
    assert "bfloat16: logits are rounded" in done.stderr
    assert "bfloat16: logits are rounded" in invoke(*half).stdout


def test_plan_prints_the_cost_and_stops() -> None:
    done = invoke(*PARIS, "--plan")
    assert done.exit_code == 0
    assert "1 prompts in 1 batches" in done.stdout
    assert "block-tokens" in done.stdout
    (row,) = json.loads(invoke(*PARIS, "--plan", "--json").stdout)
    assert row["block_tokens"] == row["padded_tokens"] * 6


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run", "tarot", "--prompt", "x"], "unknown instrument 'tarot'"),
        (["run", "logit_lens"], "expected either --prompt TEXT, --chat FILE or"),
        (["run", "logit_lens", "--prompt", ""], "empty prompt"),
        (["run", "logit_lens", "--prompt", "x", "--target", " Paris London"], "tokens"),
        (["run", "logit_lens", "--prompt", "x", "--target-id", "999999"], "outside the vocabulary"),
        (["run", "logit_lens", "--prompt", "x", "--target", "a", "--target-id", "1"], "not both"),
        (["run", "logit_lens", "--prompt", "x", "--set", "topk=1"], "has no setting 'topk'"),
        (["run", "logit_lens", "--prompt", "x", "--set", "top_k"], "expected name=value"),
        (["run", "logit_lens", "--prompt", "x", "--set", "top_k=many"], "top_k is 'many'"),
        (["run", "logit_lens", "--prompt", "x", "--set", "positions=99"], "position 99 is outside"),
        (
            ["run", "logit_lens", "--prompt", "x", "--set", "positions=1.5"],
            "positions 1.5: expected",
        ),
        (
            ["run", "logit_lens", "--prompt", "x", "--device", "tpu9"],
            "device 'tpu9' cannot be used",
        ),
        (["run", "logit_lens", "--prompt", "word " * 400], "the model's context is"),
        (["run", "logit_lens", "--prompt", "x", "--out", "lens.pkl"], "expected a suffix"),
        (["run", "logit_lens", "--prompt", "x", "--out", "none/lens.nc"], "no folder none"),
        (["run", "logit_lens", "--prompts", "none.jsonl"], "no prompt file"),
        (["run", "logit_lens", "--prompt", "x", "--model", "./none"], "no folder ./none"),
        (["app", "--model-root", "none"], "--model-root none is no folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(args: list[str], message: str) -> None:
    done = invoke(*args)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_malformed_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"text": "x"}\n{"text": }\n')
    done = invoke("run", "logit_lens", "--prompts", str(file))
    assert done.exit_code == 2
    assert "line 2: not JSON" in done.stderr
