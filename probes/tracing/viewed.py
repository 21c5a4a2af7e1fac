"""What shows the result of a causal trace, apart from what measures it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from workbench.instrument import Paced

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import polars as pl
    import xarray as xr

    from workbench.figures.panels import Panel
    from workbench.report.sections import Section

__all__ = ["Viewed"]


class Viewed(Paced):
    """A driving instrument whose result has the axes of a causal trace."""

    @classmethod
    def rows(cls, data: xr.Dataset) -> Iterator[dict[str, Any]]:
        """One row a prompt, site, layer and position that was measured."""
        from probes.tracing.rows import rows

        return rows(data)

    @classmethod
    def figure(
        cls,
        data: xr.Dataset,
        *,
        theme: str = "light",
        prompt: str | int | None = None,
        selected: tuple[int, int] | None = None,
        **options: Any,
    ) -> go.Figure:
        """One prompt's heat maps; averages by token role where several have subjects and none is named.

        Options are value ("effect", "normalised", "score") and, of averages, twin (the dataset of the
        same prompts on an untrained twin), resamples and seed; see `probes.tracing.figures`.
        """
        from probes.tracing.figures import figure

        return figure(data, theme=theme, prompt=prompt, selected=selected, **options)

    @classmethod
    def panels(
        cls,
        data: xr.Dataset,
        *,
        prompt: str | int | None = None,
        position: int | None = None,
        site: str | None = None,
    ) -> Sequence[Panel]:
        """The effects of a component by position, and those of all components at one token."""
        from probes.tracing.panels import panels

        return panels(data, prompt=prompt, position=position, site=site)

    @classmethod
    def facts(
        cls,
        data: xr.Dataset,
        *,
        layer: int,
        prompt: str | int | None = None,
        position: int | None = None,
        site: str | None = None,
    ) -> list[tuple[str, str]]:
        """The runs' scores, and each component's effect with its interval."""
        from probes.tracing.facts import facts

        return facts(data, layer=layer, prompt=prompt, position=position)

    @classmethod
    def section(cls, rows: pl.LazyFrame, data: xr.Dataset | None = None) -> Section:
        """The total effect, averages by token role, and the prompts to look at."""
        from probes.tracing.report import section

        return section(rows)
