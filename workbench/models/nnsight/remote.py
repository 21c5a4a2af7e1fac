"""nnsight models whose passes travel: to NDIF, or through the same door and back to this process."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from workbench.errors import UnsupportedError
from workbench.models.batch import Batch
from workbench.models.forward import Start, one_column
from workbench.models.nnsight.engine import Located, NnsightModel
from workbench.models.nnsight.ndif import Ndif
from workbench.models.nnsight.packing import by_value
from workbench.models.taps import recording
from workbench.prompts import Prompts

__all__ = ["NdifModel", "SimulatedModel"]


class SimulatedModel(NnsightModel):
    """Every pass is packed as for NDIF, unpacked where no local module can be seen, and run here."""

    @override
    def _run(self, *args: Any, **kwargs: Any) -> dict[int, Tensor]:
        try:
            with self.lock, by_value():
                return super()._run(*args, **kwargs)
        except ModuleNotFoundError as error:
            raise UnsupportedError(
                f"the pass could not be run elsewhere ({error}): nnsight.register(module) sends a module "
                "along"
            ) from error

    @override
    def _backend(self) -> Any:
        simulation = import_module("nnsight.intervention.backends.local")
        return simulation.LocalSimulationBackend(self._tree.root)


class NdifModel(NnsightModel):
    """A model on NDIF: here are its parts without weights; every pass is a job sent there.

    Each call of `readout` is a job too, and gives no gradient. Edits and scalars are sent as source
    with what they refer to.

    Attributes:
        seconds: how long one pass may take, waiting included.
    """

    def __init__(
        self,
        hf: Any,
        tokenizer: Any,
        *,
        name: str,
        revision: str | None = None,
        seconds: float = 600.0,
    ) -> None:
        super().__init__(hf, tokenizer, name=name, revision=revision)
        self.seconds = seconds
        self._answered: torch.dtype | None = None

    @property
    @override
    def device(self) -> torch.device:
        """Where inputs are made and answers land."""
        return torch.device("cpu")

    @property
    @override
    def dtype(self) -> torch.dtype:
        """Dtype of what NDIF answers; before the first answer what the model's files say."""
        return super().dtype if self._answered is None else self._answered

    @override
    def _weights(self) -> str:
        return f"on NDIF, {self.name}, revision {self.revision or 'main'}"

    @override
    def _require_eval(self) -> None:
        """The model that runs is NDIF's."""

    @override
    def _backend(self) -> Ndif:
        attention = {"attn_implementation": self.anatomy.config._attn_implementation}
        return Ndif(self.name, self.revision, attention, self.seconds)

    @override
    def _run(
        self,
        batch: Batch,
        taps: Located,
        found: dict[int, Tensor],
        columns: Tensor | None,
        start: Start | None = None,
    ) -> dict[int, Tensor]:
        with self.lock:
            found = super()._run(batch, taps, found, columns, start)
        self._answered = self._answered or found[0].dtype
        return {index: value.detach() for index, value in found.items()}

    @override
    def embedded(self, batch: Batch | Prompts, shift: Tensor | None = None) -> Tensor:
        raise self._cannot("embedded states on NDIF")

    @property
    @override
    def embedding(self) -> Tensor:
        raise self._cannot("embedding matrix on NDIF")

    @override
    def readout(self, resid: Tensor) -> Tensor:
        if resid.requires_grad:
            raise self._cannot("gradient through the last step on NDIF")
        batch = one_column(len(resid), self.device)
        found: dict[int, Tensor] = {}
        taps: Located = [self._logits_tap(recording(found, 0))]
        found = self._run(batch, taps, found, batch.ids[0], (self.n_layers, resid[:, None]))
        return found[0][:, 0]
