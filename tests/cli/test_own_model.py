"""The commands on a model of one's own: chats, adapters, and base against fine-tuned."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from app.cli import cli
from tests.models.test_adapters import write
from tests.tiny import hf_model, tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
ASKED = ("--prompt", "The tower", "--set", "positions=last")
COMPARED = ("--instruments", "logit_lens", "--prompt", "The tower")


def invoke(*args: str | Path) -> Result:
    return CliRunner().invoke(cli, list(map(str, args)))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "base"
    own = tokenizer()
    own.chat_template = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}"
    hf_model("llama").save_pretrained(folder)
    own.save_pretrained(folder)
    own.chat_template = None  # the fixture's tokenizer is everybody's
    return folder


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("adapters") / "lora")


def test_a_chat(base: Path, tmp_path: Path) -> None:
    chat = tmp_path / "chat.json"
    chat.write_text(json.dumps([{"role": "user", "content": "Hi"}]))
    done = invoke(
        "run", "logit_lens", "--model", base, "--chat", chat, "--json", "--set", "positions=user"
    )
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert [row["token"] for row in rows if row["layer"] == 0] == ["H", "i"]
    assert {row["position"] for row in rows} == {2, 3}


def test_an_adapter_on_every_command(base: Path, lora: Path, tmp_path: Path) -> None:
    done = invoke("run", "logit_lens", "--model", base, "--adapter", lora, *ASKED)
    assert "<logit_lens of base + lora:" in done.stdout, done.output
    prompts = tmp_path / "p.txt"
    prompts.write_text("The tower\n")
    out = tmp_path / "out"
    given = ("--instruments", "logit_lens", "--model", base, "--adapter", lora, "--out", out)
    assert invoke("report", prompts, *given).exit_code == 0
    assert "base + lora" in (out / "report.html").read_text()
    done = invoke("doctor", "--model", base, "--adapter", lora)
    assert "<base + lora: llama" in done.stdout, done.output


def test_base_against_its_adapter(base: Path, lora: Path) -> None:
    done = invoke("compare", base, "--adapter", lora, *COMPARED, "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert {(row["instrument"], row["model"]) for row in rows} == {
        ("logit_lens", "base"),
        ("logit_lens", "base + lora"),
    }
    table = invoke("compare", base, "--adapter", lora, *COMPARED).stdout
    assert "<logit_lens: base against base + lora>" in table


def test_two_models_into_a_folder(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "found"
    done = invoke("compare", base, base, *COMPARED, "--out", out)
    assert done.exit_code == 0, done.output
    assert {path.name for path in out.iterdir()} == {"logit_lens.parquet", "logit_lens.html"}
    names = set(pd.read_parquet(out / "logit_lens.parquet")["model"])
    assert names == {"base (base)", "base (tuned)"}
    assert "is there already" in invoke("compare", base, base, *COMPARED, "--out", out).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["found"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["compare", "atlas", *COMPARED], "expected either a second model or --adapter"),
        (["compare", "atlas", "atlas", "--adapter", "x", *COMPARED], "expected either a second"),
        (["compare", "atlas", "atlas", *COMPARED[:2]], "expected either --prompt TEXT, --chat"),
        (["compare", "atlas", "atlas-bag", *COMPARED, "--out", "no/no"], "no folder no: make it"),
        (["run", "logit_lens", "--chat", "none.json"], "no chat file none.json"),
        (["run", "logit_lens", "--adapter", "./none", *ASKED], "no adapter folder ./none"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(args: list[str], message: str) -> None:
    done = invoke(*args)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_the_bundled_model_has_no_chat_template(tmp_path: Path) -> None:
    chat = tmp_path / "chat.json"
    chat.write_text(json.dumps([{"role": "user", "content": "Hi"}]))
    done = invoke("run", "logit_lens", "--chat", chat)
    assert done.exit_code == 2
    assert "the tokenizer has no chat template" in done.stderr
