"""The weights of a loaded model that instruments may read: linear maps, norms, the unembedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from workbench.errors import UnsupportedError
from workbench.models.anatomy import Anatomy
from workbench.models.changes import Changes
from workbench.models.family import Kind
from workbench.models.norms import Norm
from workbench.models.quantised import require_plain_weights

__all__ = ["Map", "Unembedding", "Weights"]

BRANCHES = ("attn_out", "cross_attn_out", "mlp_out")


@dataclass(frozen=True)
class Map:
    """A linear map z = x W + b.

    Attributes:
        weight: [d_in, d_out] W.
        bias: [d_out] b, or None.
    """

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True)
class Unembedding:
    """The last linear step: logits before a soft-cap = norm(h) weight^T + bias.

    A family's logit scale is in it.

    Attributes:
        weight: [V, d].
        bias: [V], or None.
        capped: whether the model squashes these logits after (Gemma 2's soft-cap).
    """

    weight: Tensor
    bias: Tensor | None
    capped: bool

    def rows(self, ids: Tensor) -> Tensor:
        """[N, d] the rows of these tokens [N]."""
        return self.weight[ids.to(self.weight.device)]


class Weights:
    """A model's own weights, on the devices where they lie; nothing here may be written to.

    Under a view's changes (see `Engine.with_changes`) the maps are those that its passes have.
    """

    def __init__(self, hf: Any, anatomy: Anatomy, changes: Changes) -> None:
        self._hf = hf
        self._anatomy = anatomy
        self._changes = changes

    @property
    def maps(self) -> tuple[str, ...]:
        """The names of the linear maps that its blocks have."""
        return tuple(self._anatomy.family.maps)

    def map(self, name: str, layer: int) -> Map:
        """The linear map `name` of block `layer`: ff1, ff2; up, gate, down; q, k, v, o.

        Raises:
            UnsupportedError: the family has no such map, or its weights are quantised.
        """
        module: Any = self._anatomy.map_module(name, layer)
        require_plain_weights(module, f"weights of {name}, layer {layer}")
        weight, bias = module.weight, getattr(module, "bias", None)
        held = getattr(module, "original_component", module)  # what a TransformerBridge wraps
        weight = weight if type(held).__name__ == "Conv1D" else weight.T
        own = self._anatomy.map_outputs(name, layer)
        if own is not None:
            own = own.to(weight.device)
            weight, bias = weight[:, own], None if bias is None else bias[own]
        if (change := self._changes.get((name, layer))) is not None:
            weight = weight + change.formed.to(weight)
        return Map(weight.detach(), None if bias is None else bias.detach())

    @property
    def multiplier(self) -> float:
        """What a branch's output is multiplied by before it is added (Granite's residual_multiplier)."""
        return self._anatomy.multiplier

    def adds(self, name: str) -> bool:
        """Whether what the map `name` gives is what its branch adds to the residual stream."""
        last = name in ("o", "ff2", "down")
        return last and self.multiplier == 1 and not self._added_by(name).endswith("layernorm")

    @property
    def _n_heads(self) -> int:
        """How many heads of queries one attention has."""
        return int(self._anatomy.config.num_attention_heads)

    @property
    def d_head(self) -> int:
        """Width of one head's output."""
        return int(self.map("o", 1).weight.shape[0] // self._n_heads)

    @property
    def last_mlp_map(self) -> str:
        """The name of the MLP's last map, which writes to the residual stream: ff2 or down."""
        return "ff2" if "ff2" in self._anatomy.family.maps else "down"

    @property
    def mlp_inputs(self) -> tuple[str, ...]:
        """The names of the maps through which the MLP reads: ff1, or up and gate.

        Empty where each token goes to experts of its own.
        """
        return tuple(name for name in ("ff1", "up", "gate") if name in self._anatomy.family.maps)

    @property
    def branches(self) -> tuple[str, ...]:
        """The sites of what each block adds to the residual stream, in the order of the branches.

        Raises:
            UnsupportedError: no branch adds to the stream (BERT).
        """
        crosses = bool(self._anatomy.family.cross_attention)
        found = tuple(name for name in BRANCHES if crosses or name != "cross_attn_out")
        for name in found:
            self._anatomy.require(name)
        return found

    def branch_norm(self, name: str, layer: int) -> tuple[nn.Module, Norm] | None:
        """The norm between a branch's last map ("o", "ff2" or "down") and the residual stream.

        None in all but the post-norm families (Gemma 2 and 3, OLMo 2).
        """
        path = self._added_by(name)
        if not path.endswith("layernorm"):
            return None
        module = self._anatomy.part(layer, path)
        return module, Norm.of(module, self.map(name, layer).weight)

    def input_norm(self, branch: Literal["attention", "mlp"], layer: int) -> nn.Module:
        """The norm through which a branch reads the residual stream.

        Raises:
            UnsupportedError: there is none, or the branch also adds through a norm, so that what it adds
                is no sum of its heads' parts.
        """
        family = self._anatomy.family
        mlp = family.mlp_norm if self.parallel else family.resid_mid
        if not family.attn_norm:
            raise UnsupportedError(
                f"{self._anatomy.config.model_type}: what a branch adds to the residual stream goes "
                "through a norm, so it is no sum of its heads' parts"
            )
        return self._anatomy.part(layer, family.attn_norm if branch == "attention" else mlp)

    @property
    def parallel(self) -> bool:
        """Whether both branches of a block read the same state."""
        return self._anatomy.parallel

    def sum_norm(self, layer: int) -> tuple[nn.Module, Norm] | None:
        """The norm of the sum of the residual stream and attention's output.

        None in all but BERT, whose blocks have no residual stream without it.
        """
        path = self._anatomy.family.sum_norm
        if not path:
            return None
        module = self._anatomy.part(layer, path)
        return module, Norm.of(module, self.map("o", layer).weight)

    def _added_by(self, name: str) -> str:
        """The path of the module whose output the branch of a map adds to the residual stream."""
        family = self._anatomy.family
        return family.attn_out if name == "o" else family.mlp_out

    def final_norm(self, like: Tensor) -> tuple[nn.Module, Norm]:
        """The norm before the unembedding, and what it does; `like` is a state [..., d]."""
        module = self._anatomy.final_norm
        return module, Norm.of(module, like)

    @property
    def unembedding(self) -> Unembedding:
        """The last linear step.

        Raises:
            UnsupportedError: the last step is not linear (BERT's head), or its weights are quantised.
        """
        config, head = self._anatomy.config, self._hf.get_output_embeddings()
        if self._anatomy.family.kind == "encoder":
            raise UnsupportedError(
                f"{config.model_type}: its head is no linear map of the last state, so logits have no "
                "weights to speak of"
            )
        require_plain_weights(head, "weights of the unembedding")
        weight, bias, scale = head.weight.detach(), head.bias, self._logit_scale
        last = self._anatomy.head
        if not isinstance(last, nn.Identity):  # OPT's projection to the width of its embeddings
            weight = weight @ last.weight.detach()  # type: ignore[operator]
        if scale != 1:
            weight = weight * scale
            bias = None if bias is None else bias * scale
        capped = getattr(config, "final_logit_softcapping", None) is not None
        return Unembedding(weight, None if bias is None else bias.detach(), capped)

    @property
    def _logit_scale(self) -> float:
        config = self._anatomy.config
        scale = float(getattr(config, "logit_scale", None) or 1)
        scale /= float(getattr(config, "logits_scaling", None) or 1)
        if getattr(config, "scale_decoder_outputs", False):  # T5, where embeddings are shared
            scale *= float(config.d_model) ** -0.5
        return scale

    @torch.no_grad()
    def neurons(self, layer: int) -> Tensor:
        """[d_mlp, d] value vectors: what each neuron of the MLP writes per unit of activation.

        Of a post-norm family, before that norm.
        """
        return self.map(self.last_mlp_map, layer).weight * self.multiplier

    @property
    def kind(self) -> Kind:
        """Whether it is a decoder, an encoder, or has one of each."""
        return self._anatomy.family.kind

    @torch.no_grad()
    def heads(self, layer: int) -> Tensor:
        """[heads, d_head, d] each head's part of attention's output map.

        Of a post-norm family, before that norm.
        """
        weight = self.map("o", layer).weight * self.multiplier
        return weight.view(self._n_heads, -1, weight.shape[-1])
