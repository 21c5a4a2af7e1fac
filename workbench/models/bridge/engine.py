"""The transformer-lens engine: passes run through a `TransformerBridge` and its hook points."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Self

from typing_extensions import override

from workbench.errors import ModelError, UnsupportedError
from workbench.models.adapters import adapter_layers
from workbench.models.batch import Batch
from workbench.models.bridge.anatomy import BridgeAnatomy
from workbench.models.bridge.checks import check_bridge
from workbench.models.bridge.twins import bridged, is_bridge, unbridged
from workbench.models.captures import Captures
from workbench.models.edits import Edit
from workbench.models.forward import Start
from workbench.models.gradients import Scalar
from workbench.models.hooks import Attachable, Tap
from workbench.models.keys_values import KeyValues
from workbench.models.locks import lock_of
from workbench.models.positions import Positions
from workbench.models.sites import SiteRequest
from workbench.models.torch_engine import TorchModel
from workbench.prompts import Prompts

__all__ = ["BridgeModel"]


class BridgeModel(TorchModel):
    """A model whose passes run through transformer-lens; the sites are at its hook points.

    The sites mean what they mean on every engine, also where transformer-lens' hook of a like name
    means something else: resid_mid is set through attn_out, and a restart runs no block below it.

    Attributes:
        bridge: the `TransformerBridge`.
        hf: the Hugging Face model without the bridge, on the same weights.
        read_only: sites whose hook sees the value and cannot change it, with the reason.
    """

    engine = "transformer_lens"
    anatomy: BridgeAnatomy

    def __init__(
        self, bridge: Any, hf: Any, tokenizer: Any, *, name: str, revision: str | None = None
    ) -> None:
        super().__init__(
            hf, tokenizer, name=name, revision=revision, anatomy=BridgeAnatomy(bridge, hf)
        )
        self.bridge = bridge
        self.read_only: dict[str, str] = {}
        self._made_of = self._fingerprint()

    @classmethod
    @override
    def of(cls, model: Any, tokenizer: Any, *, name: str, revision: str | None = None) -> Self:
        """Of a Hugging Face model, which stays as it is, or of a `TransformerBridge`.

        Args:
            tokenizer: the bridge's own where None.

        Raises:
            UnsupportedError: transformer-lens cannot wrap the model, or gives other logits.
        """
        held = model.original_model if is_bridge(model) else model
        _require_plain(held)
        if is_bridge(model):
            bridge, plain = model, unbridged(held)
            tokenizer = _tokenizer(bridge) if tokenizer is None else tokenizer
            name = bridge.cfg.model_name or name
        else:
            bridge, plain = bridged(model, name), model
        loaded = cls(bridge, plain, tokenizer, name=name, revision=revision)
        loaded.lock = lock_of(held)
        check_bridge(loaded, TorchModel(plain, tokenizer, name=name))
        return loaded

    @property
    @override
    def network(self) -> Any:
        return self.bridge.original_model

    @override
    def provenance(self) -> dict[str, Any]:
        """As every engine's, with the library's version.

        Raises:
            ModelError: the weights have changed since the bridge was made; it holds copies of some.
        """
        said = super().provenance()
        if said["weights"] != self._made_of:
            raise ModelError(
                f"{self.name}: its weights have changed since it was loaded, and transformer-lens holds "
                "copies of some: load it again"
            )
        library = version("transformer-lens")
        return said | {"transformer_lens": library, "read_only": self.read_only}

    @override
    def _edit_taps(
        self,
        batch: Batch,
        edits: Sequence[Edit],
        start: Start | None,
        prefix: KeyValues | None,
        last: int,
    ) -> list[tuple[Attachable, Tap]]:
        for edit in edits:
            self._require_changeable(edit.target.name, "edited")
        return super()._edit_taps(batch, edits, start, prefix, last)

    @override
    def grad(
        self,
        batch: Batch | Prompts,
        scalar: Scalar,
        sites: str | Sequence[SiteRequest],
        positions: Positions = "all",
        at: Positions = "last",
        start: Start | None = None,
    ) -> Captures:
        for site in self._sites(sites):
            self._require_changeable(site.name, "differentiated at")
        return super().grad(batch, scalar, sites, positions, at, start)

    def _require_changeable(self, site: str, what: str) -> None:
        if (reason := self.read_only.get(site)) is not None:
            raise UnsupportedError(
                f"{self.name}: {site} can be read and not {what} through transformer-lens: {reason}"
            )


def _tokenizer(bridge: Any) -> Any:
    if bridge.tokenizer is None:
        raise ModelError(
            "a TransformerBridge without a tokenizer needs one: load(bridge, tokenizer)"
        )
    return bridge.tokenizer


def _require_plain(hf: Any) -> None:
    if not hasattr(hf, "get_input_embeddings"):
        raise ModelError(
            f"a TransformerBridge over {type(hf).__name__}: expected one over a Hugging Face model"
        )
    if adapter_layers(hf):
        raise UnsupportedError(
            "the transformer_lens engine takes no adapter: load the model with engine='torch' for it, or "
            "merge the adapter"
        )
