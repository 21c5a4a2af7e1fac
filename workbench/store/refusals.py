"""What stored activations cannot do: everything that runs a model's blocks."""

from __future__ import annotations

from typing import Any, NoReturn

from workbench.errors import UnsupportedError

__all__ = ["NoBlocks"]


class NoBlocks:
    """The calls of a model that a store refuses, by name."""

    def intervene(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: UnsupportedError."""
        raise _needs_model("edit a forward pass")

    def tail(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: UnsupportedError."""
        raise _needs_model("restart a forward pass")

    def grad(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: UnsupportedError."""
        raise _needs_model("differentiate")

    def grad_and_values(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: UnsupportedError."""
        raise _needs_model("differentiate")

    def factors(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: UnsupportedError."""
        raise _needs_model("differentiate")

    def pullback(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: UnsupportedError."""
        raise _needs_model("differentiate")

    @property
    def weights(self) -> NoReturn:
        """Refused: UnsupportedError."""
        raise _needs_model("give weights")

    @property
    def n_heads(self) -> NoReturn:
        """Refused: UnsupportedError."""
        raise _needs_model("say how many heads there are")

    @property
    def n_parameters(self) -> NoReturn:
        """Refused: UnsupportedError."""
        raise _needs_model("say how many parameters there are")

    @property
    def stacks(self) -> NoReturn:
        """Refused: UnsupportedError."""
        raise _needs_model("be run")

    def window(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: UnsupportedError."""
        raise _needs_model("say what a token sees")

    def with_changes(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: UnsupportedError."""
        raise _needs_model("change weights")

    def with_steering(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: UnsupportedError."""
        raise _needs_model("be steered")

    def twin(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: UnsupportedError."""
        raise _needs_model("make a twin")

    def block(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: UnsupportedError."""
        raise _needs_model("run a block")

    def blocks(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: UnsupportedError."""
        raise _needs_model("run blocks")

    def embedded(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: UnsupportedError."""
        raise _needs_model("embed")

    @property
    def embedding(self) -> NoReturn:
        """Refused: UnsupportedError."""
        raise _needs_model("give its embedding")

    def keys_values(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: UnsupportedError."""
        raise _needs_model("give keys and values")

    def with_adapter(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: UnsupportedError."""
        raise _needs_model("put on an adapter")

    def generate(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: UnsupportedError."""
        raise _needs_model("generate text")


def _needs_model(what: str) -> UnsupportedError:
    return UnsupportedError(f"a store of activations cannot {what}: use the model")
