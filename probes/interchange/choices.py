"""The four kinds of subspace, each with the random one that it is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from probes.interchange.levels import Level
from probes.interchange.measure import Case
from probes.interchange.rotation import Fit
from probes.interchange.subspaces import axes, class_means, other_axes, random_basis

__all__ = ["Coordinates", "Given", "Means", "Rotation"]


@dataclass(frozen=True)
class _Spanned:
    """A subspace in any direction; `seed` is that of its random controls."""

    seed: int

    def random(self, level: Level, k: int, draw: int) -> Tensor:
        """[width, k] a uniformly drawn subspace."""
        return random_basis(level.values.shape[1], k, self.seed + draw)


@dataclass(frozen=True)
class Given(_Spanned):
    """Directions that are given, `columns` [width, k]; the same at every layer and in every control."""

    columns: Tensor

    def basis(self, level: Level, case: Case) -> Tensor:
        """[width, k]."""
        return self.columns.to(level.values.device)


@dataclass(frozen=True)
class Means(_Spanned):
    """Differences of class means over the training pairs' prompts; other targets are other names."""

    most: int

    def basis(self, level: Level, case: Case) -> Tensor:
        """[width, k]."""
        train = case.train
        rows = torch.unique(torch.cat([case.base[train], case.source[train]]))
        values = level.values[rows.to(level.values.device)]
        return class_means(values, case.classes[rows], case.kinds[rows], self.most)


@dataclass(frozen=True)
class Rotation(_Spanned):
    """A subspace fitted on the training pairs."""

    fit: Fit

    def basis(self, level: Level, case: Case) -> Tensor:
        """[width, k]."""
        train = case.train
        return self.fit.basis(level, case.base[train], case.source[train], case.wanted[train])[0]


@dataclass(frozen=True)
class Coordinates:
    """Coordinates of the site, against as many others."""

    indices: Sequence[int]
    seed: int

    def basis(self, level: Level, case: Case) -> Tensor:
        """[width, k]."""
        return axes(level.values.shape[1], self.indices, level.values)

    def random(self, level: Level, k: int, draw: int) -> Tensor:
        """[width, k] coordinates drawn at random from the others."""
        width = level.values.shape[1]
        return axes(width, other_axes(width, self.indices, self.seed + draw), level.values)
