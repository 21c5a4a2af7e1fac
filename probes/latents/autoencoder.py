"""A sparse autoencoder: the latents of a state, and the state that latents stand for."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import save
from torch import Tensor

from probes.latents.architectures import gated, shapes, top_k
from probes.latents.config import CENTRED, LOADED, OF_D_MODEL, Config
from probes.latents.folders import CFG, WEIGHTS, folder_destination, read_folder
from workbench.errors import ModelError, ResultError, SettingError, UnsupportedError
from workbench.fitted_model import require_same
from workbench.models.protocol import Model
from workbench.models.sites import Site, expand_sites
from workbench.store.activations import Store
from workbench.store.shards import Shards

__all__ = ["SparseAutoencoder"]

OURS = "workbench"
DIGITS = 16
MARKED = re.compile(r"(?P<folder>.+)#(?P<hash>[0-9a-f]{16})", re.DOTALL)
EPSILON = 1e-5  # SAELens' own, added to the standard deviation


class SparseAutoencoder:
    """An SAE in SAELens' format: a folder with cfg.json and sae_weights.safetensors.

    With n(x) the state after the norm that cfg names, x~ = n(x) - b_dec (b_dec only where cfg says
    apply_b_dec_to_input) and p = x~ W_enc + b_enc, latents are:

        standard: relu(p)
        topk:     relu(p) where p is among the k greatest, else 0; with rescale_acts_by_decoder_norm p is
                  p |W_dec|, row by row, and latents are divided by it again before they are decoded
        jumprelu: relu(p) where p > threshold, else 0
        gated:    relu(x~ (W_enc exp(r_mag)) + b_mag) where x~ W_enc + b_gate > 0, else 0

    and the state is n^-1(latents W_dec + b_dec). Products are taken in float32 at least, of tensors
    that are first rounded to cfg's dtype.

    Source: Bricken et al. 2023, "Towards Monosemanticity" (standard); Gao et al. 2024, arXiv 2406.04093
    (topk); Rajamanoharan et al. 2024, arXiv 2407.14435 (jumprelu) and arXiv 2404.16014 (gated).

    Attributes:
        cfg: what the folder's cfg.json says.
        config: the same, checked.
        tensors: W_enc [d_in, d_sae], W_dec [d_sae, d_in], b_dec [d_in] and the architecture's own.
        folder: where it lies; None where it was not saved.

    >>> sae = SparseAutoencoder.load("sae")  # doctest: +SKIP
    >>> sae.encode(states)  # [N, d_sae]  # doctest: +SKIP
    """

    def __init__(
        self, cfg: Mapping[str, Any], tensors: Mapping[str, Tensor], folder: Path | None = None
    ) -> None:
        called = f"SAE {folder}" if folder is not None else "SAE"
        self.cfg, self.folder = dict(cfg), folder
        self.config = Config.of(cfg, called)
        self.tensors = {name: tensor.detach() for name, tensor in tensors.items()}
        self._drop_unit_scale(called)
        self._require_shapes(called)
        self._placed: dict[tuple[torch.device, torch.dtype], dict[str, Tensor]] = {}

    @property
    def site(self) -> Site:
        """What it reads."""
        return self.config.site

    def target(self, states: Tensor) -> Tensor:
        """[N, d_in] what it gives back: the states, less their mean where its model had none."""
        wide = states.flatten(1).to(torch.promote_types(states.dtype, torch.float32))
        if wide.shape[1] != self.config.d_in:
            raise ModelError(
                f"{self}: {self.site} has width {wide.shape[1]}: expected {self.config.d_in}"
            )
        return wide - wide.mean(1, keepdim=True) if self.config.mean_free else wide

    def encode(self, states: Tensor) -> Tensor:
        """[N, d_sae] latents of states [N, ...] at its site.

        Raises:
            ModelError: they are of another width.
        """
        x, _, _ = self._normed(self.target(states))
        part = self._at(x)
        if self.config.centred:
            x = x - part["b_dec"]
        if self.config.architecture == "gated":
            return gated(x, part)
        p = torch.addmm(part["b_enc"], x, part["W_enc"])
        if self.config.architecture == "topk":
            return top_k(p * self._rescaling(part), self.config.k)
        if self.config.architecture == "jumprelu":
            return p.relu().masked_fill_(p <= part["threshold"], 0.0)
        return p.relu_()

    def decode(self, latents: Tensor, states: Tensor) -> Tensor:
        """[N, d_in] the states that latents [N, d_sae] stand for; `states` tell how they were normed."""
        _, size, shift = self._normed(self.target(states))
        part = self._at(latents)
        made = torch.addmm(part["b_dec"], latents / self._rescaling(part), part["W_dec"])
        return made * size + shift

    def _rescaling(self, part: Mapping[str, Tensor]) -> Tensor | float:
        top = self.config.architecture == "topk" and self.config.rescale
        return part["W_dec"].norm(dim=1) if top else 1.0

    def _normed(self, x: Tensor) -> tuple[Tensor, Tensor | float, Tensor | float]:
        """n(x), and by what its inverse multiplies and what it adds."""
        if self.config.norm == "constant_norm_rescale":
            size = x.norm(dim=1, keepdim=True) / x.shape[1] ** 0.5
            return x / size, size, 0.0
        if self.config.norm == "layer_norm":
            mean, spread = x.mean(1, keepdim=True), x.std(1, keepdim=True)
            return (x - mean) / (spread + EPSILON), spread, mean
        return x, 1.0, 0.0

    def _at(self, like: Tensor) -> dict[str, Tensor]:
        key = like.device, like.dtype
        if key not in self._placed:
            rounded = {name: one.to(self.config.dtype) for name, one in self.tensors.items()}
            self._placed = {key: {name: one.to(*key) for name, one in rounded.items()}}
        return self._placed[key]

    def __repr__(self) -> str:
        return f"SAE {self.hash[:8]} ({self.config.architecture}, {self.config.d_sae} latents)"

    @cached_property
    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of its tensors as a file."""
        return hashlib.sha256(self._encoded()).hexdigest()[:DIGITS]

    def require(self, model: Model) -> None:
        """Refuse a model that lacks its site, has another width, or is not the one it was fitted on.

        Raises:
            SettingError, ModelError: it does; weights, adapter and tokenizer can be compared for SAEs
                that were fitted here (see `require_same`), others say a model's name alone.
            UnsupportedError: it reads states without their mean, of a model to which that matters.
        """
        expand_sites([self.site], model.n_layers)
        if self.site.name in OF_D_MODEL and self.config.d_in != model.d_model:
            raise ModelError(
                f"{self} reads states of width {self.config.d_in}: {model.name} has {model.d_model}"
            )
        if self.config.mean_free and not isinstance(model, Store) and not _centres(model):
            raise UnsupportedError(
                f"{self} reads states without their mean (center_writing_weights), which {model.name} "
                "does not ignore: its norms take no mean off"
            )
        if (fitted := self.made.get("model")) is not None:
            require_same(fitted, model, str(self))

    @property
    def made(self) -> Mapping[str, Any]:
        """What a fit of this workbench says of it; empty for others."""
        found: Mapping[str, Any] = (self.cfg.get("metadata") or {}).get(OURS) or {}
        return found

    def save(self, path: str | Path) -> Path:
        """Save as a folder, which appears whole or not at all.

        Raises:
            ResultError: it is there, or its parent is not.
        """
        path = folder_destination(path)
        with Shards(path.parent).writing(path.name) as new:
            (new / WEIGHTS).write_bytes(self._encoded())
            (new / CFG).write_text(json.dumps(self.cfg, indent=2) + "\n", encoding="utf-8")
        self.folder = path
        return path

    def _encoded(self) -> bytes:
        return save({name: one.cpu().contiguous() for name, one in self.tensors.items()})

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Of a folder on this machine; nothing is fetched from anywhere.

        Raises:
            ResultError: no such folder, or files that cannot be read.
            UnsupportedError, SettingError: see `Config.of`.
        """
        cfg, tensors = read_folder(Path(folder))
        return cls(cfg, tensors, Path(folder))

    @classmethod
    def named(cls, text: str | Path) -> Self:
        """Of a folder, or of folder#hash, which is then compared.

        Raises:
            SettingError: the hash is another one.
            ResultError, UnsupportedError: as `load`.
        """
        marked = MARKED.fullmatch(str(text))
        sae = cls.load(str(text) if marked is None else marked["folder"])
        if marked is not None and marked["hash"] != sae.hash:
            raise SettingError(f"{sae.folder} is SAE {sae.hash}: expected {marked['hash']}")
        return sae

    def remark(self, model: Model) -> str:
        """What a result must say of it: where it lies, how much it explains, what it was fitted on."""
        said = f"{self} reads {self.site}, folder {self.folder}"
        held = self.made.get("held_out")
        if held:
            said += (
                f"; it explains {held['variance_explained']:.3f} of the variance held out with "
                f"{held['l0']:.1f} latents a token (PCA of rank {held['rank']}: {held['pca']:.3f}, random "
                f"directions: {held['random_dictionary']:.3f})"
            )
        elif self.config.model_name not in (None, model.name):
            said += f"; it says that it was fitted on {self.config.model_name}"
        opens = bool(model.tokens.opening)
        if self.config.opening not in (None, opens):
            said += f"; its texts {'did not begin' if opens else 'began'} with BOS, unlike these"
        return said + self._unsaid()

    def _unsaid(self) -> str:
        """An older folder may be of a model that transformer-lens had centred, as it does by default."""
        config = self.config
        if self.made or config.mean_said or config.site.name not in OF_D_MODEL:
            return ""
        return (
            f"; cfg.json does not say whether its states were without their mean, and they are read with "
            f"it: where they were, add {LOADED} with {CENTRED} to it"
        )

    def described(self) -> dict[str, Any]:
        """Where it lies, its hash, and how it was made."""
        return {"folder": str(self.folder), "hash": self.hash, **self.made}

    def summary(self) -> str:
        """Where it lies, and what it does on the part held out, beside its controls."""
        lines = [f"{self} of {self.site} in {self.folder}"]
        held = self.made.get("held_out")
        if not held:
            return f"{lines[0]}; nothing was held out"
        return "\n".join(
            [
                *lines,
                f"on {held['tokens']} tokens held out:",
                f"  variance explained      {held['variance_explained']:8.4f}",
                f"    PCA of rank {held['rank']:<4}      {held['pca']:8.4f}",
                f"    random dictionary     {held['random_dictionary']:8.4f}",
                f"  latents of a token (L0) {held['l0']:8.2f}",
                f"  latents never active    {held['inactive']:8.2%}",
            ]
        )

    def _drop_unit_scale(self, called: str) -> None:
        """Older folders hold a factor of each latent that is 1 unless it was tuned."""
        factor = self.tensors.pop("scaling_factor", None)
        if factor is not None and not torch.allclose(factor, torch.ones_like(factor)):
            raise ModelError(
                f"{called}: its latents have a tuned scaling_factor: fold it into W_dec first"
            )

    def _require_shapes(self, called: str) -> None:
        expected = shapes(self.config.architecture, self.config.d_in, self.config.d_sae)
        found = {name: tuple(one.shape) for name, one in self.tensors.items()}
        if found != expected:
            wrong = sorted(set(found.items()) ^ set(expected.items()))[0][0]
            raise ResultError(
                f"{called}: tensor {wrong} is {found.get(wrong, 'missing')}: a {self.config.architecture} "
                f"SAE has {expected.get(wrong, 'none')}"
            )


def _centres(model: Model) -> bool:
    """Whether its norms take the mean off, so that it does not see one."""
    like = torch.zeros(1, model.d_model, device=model.device)
    return model.weights.final_norm(like)[1].centres
