"""The sources of sparse probes, of units and of latents."""

from __future__ import annotations

from probes.bibliography import GURNEE
from workbench.instrument import Citation

__all__ = ["LATENTS", "PROBES"]

PROBES = Citation(
    "Features were decoded from {model} by sparse probes (Gurnee et al., 2023; {settings})",
    GURNEE,
)

LATENTS = Citation(
    "Features were decoded from {model} by sparse probes of its units (Gurnee et al., 2023) and of the "
    "latents of sparse autoencoders (Bricken et al., 2023; {settings})",
    f"{PROBES.bibtex}\n"
    "@article{bricken2023monosemanticity,\n"
    "  title   = {Towards Monosemanticity: Decomposing Language Models With Dictionary Learning},\n"
    "  author  = {Bricken, Trenton and Templeton, Adly and Batson, Joshua and others},\n"
    "  journal = {Transformer Circuits Thread},\n"
    "  year    = {2023},\n"
    "  note    = {https://transformer-circuits.pub/2023/monosemantic-features}\n"
    "}",
)
