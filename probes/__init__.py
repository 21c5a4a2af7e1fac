"""Probes: what is where in a model, and what it causes."""

from probes.ablation.instrument import Ablate
from probes.attention_entropy.instrument import AttentionEntropy
from probes.circuits.edge_instrument import EdgeAttribution
from probes.circuits.instrument import AttributionPatch
from probes.circuits.span_instrument import SpanTrace
from probes.flow.instrument import LayerFlow
from probes.interchange.instrument import Interchange
from probes.latents.autoencoder import SparseAutoencoder
from probes.latents.fit import SparseAutoencoderFit
from probes.particles.instrument import Particles
from probes.particles.spin_instrument import Spins
from probes.patching.instrument import Patch
from probes.patching.path import PathPatch
from probes.sparse.instrument import SparseProbe
from probes.steering.ablation import ProbeAblation
from probes.steering.instrument import Steering
from probes.superposition.instrument import Superposition
from probes.token_geometry.instrument import TokenGeometry
from probes.tracing.instrument import CausalTrace

__all__ = [
    "Ablate",
    "AttentionEntropy",
    "AttributionPatch",
    "CausalTrace",
    "EdgeAttribution",
    "Interchange",
    "LayerFlow",
    "Particles",
    "Patch",
    "PathPatch",
    "ProbeAblation",
    "SpanTrace",
    "SparseAutoencoder",
    "SparseAutoencoderFit",
    "SparseProbe",
    "Spins",
    "Steering",
    "Superposition",
    "TokenGeometry",
]
