"""The sources of sparse probes, of units and of latents."""

from __future__ import annotations

from workbench.instrument import Citation

__all__ = ["LATENTS", "PROBES"]

PROBES = Citation(
    "Features were decoded from {model} by sparse probes (Gurnee et al., 2023; {settings})",
    "@article{gurnee2023finding,\n"
    "  title   = {Finding Neurons in a Haystack: Case Studies with Sparse Probing},\n"
    "  author  = {Gurnee, Wes and Nanda, Neel and Pauly, Matthew and Harvey, Katherine and\n"
    "             Troitskii, Dmitrii and Bertsimas, Dimitris},\n"
    "  journal = {Transactions on Machine Learning Research},\n"
    "  year    = {2023},\n"
    "  note    = {arXiv:2305.01610}\n"
    "}",
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
