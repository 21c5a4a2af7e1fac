"""The models behind the page, and what was measured on them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from threading import Lock

from app.state import Asked, prompt_id
from lenses import LogitLens
from workbench import Model, ModelError, Result

__all__ = ["SITES", "Bench", "Loaders"]

Loaders = Mapping[str, Callable[[], Model]]
"""Models by name; each is loaded when it is first asked for."""

SITES = ("resid_post", "attn_out", "mlp_out")
TOP_K = 10
KEPT = 32  # results


class Bench:
    """Loads models when they are first asked for, and keeps the latest results.

    One measurement runs at a time; results that are kept do not wait for it.
    """

    def __init__(self, models: Loaders) -> None:
        """`models` has at least one entry; the first is the page's own."""
        if not models:
            raise ValueError("no models: expected at least one name with its loader")
        self._loaders = dict(models)
        self._models: dict[str, Model] = {}
        self._results: OrderedDict[Asked, Result] = OrderedDict()
        self._texts: dict[str, str] = {}
        self._lock = Lock()

    @property
    def names(self) -> list[str]:
        """Names of the models on offer."""
        return list(self._loaders)

    def text(self, identifier: str) -> str | None:
        """The prompt with this id, where it was measured since the server started."""
        return self._texts.get(identifier)

    def measure(self, asked: Asked) -> Result:
        """The logit lens of what was asked, measured once.

        Raises:
            WorkbenchError: the model or the prompt cannot be had or used.
        """
        if asked not in self._results:
            with self._lock:
                if asked not in self._results:
                    self._keep(asked, self._measured(asked))
        return self._results[asked]

    def _measured(self, asked: Asked) -> Result:
        lens = LogitLens(top_k=TOP_K, sites=SITES)
        return lens(self._model(asked.model), asked.prompt())

    def _model(self, name: str) -> Model:
        if name not in self._loaders:
            raise ModelError(f"no model {name!r} here: expected one of {', '.join(self.names)}")
        if name not in self._models:
            self._models[name] = self._loaders[name]()
        return self._models[name]

    def _keep(self, asked: Asked, result: Result) -> None:
        self._results[asked] = result
        self._texts[prompt_id(asked.text)] = asked.text
        while len(self._results) > KEPT:
            self._results.popitem(last=False)
