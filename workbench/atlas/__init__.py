"""Atlas: two small trained GPT-2 models, the facts they know and prompts to look at them with.

Nothing here imports torch: the functions only say where things lie.
"""

from pathlib import Path

__all__ = ["MODELS", "PROMPTS", "model_path", "prompts_path"]

MODELS = ("atlas", "atlas-bag")
PROMPTS = ("facts", "classics", "indirect_object", "induction", "agreement")

_HERE = Path(__file__).parent


def model_path(name: str = "atlas") -> Path:
    """Folder of a bundled model, as ``from_pretrained`` takes it."""
    return _HERE / "models" / _known(name, MODELS, "bundled model")


def prompts_path(name: str = "facts") -> Path:
    """JSONL file of a bundled prompt set."""
    return _HERE / "prompts" / f"{_known(name, PROMPTS, 'bundled prompt set')}.jsonl"


def _known(name: str, names: tuple[str, ...], kind: str) -> str:
    if name not in names:
        raise ValueError(f"no {kind} is called {name!r}; known: {', '.join(names)}")
    return name
