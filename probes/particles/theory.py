"""The theory of attention's particles laid over a prompt set's mean cosines, for a report."""

from __future__ import annotations

import numpy as np
import polars as pl

from probes.dynamics.overlay import Overlay, overlay
from probes.particles.bootstrap import FEWEST, resampled
from probes.particles.comparison import PAIRS, of_view, table_of
from workbench.report.charts import layer_lines
from workbench.report.sections import Plot, prompts_of

__all__ = ["fitted", "plots"]

MOST = 500  # prompts that are fitted: time and memory grow with them
CONTROLS = {view: control for (view, control), name in PAIRS.items() if name == "untrained twins"}
OWN, LAW, TWIN = "the model", "theory, fitted", "untrained twins"
SAYS = (
    "The theory: attention with identity values alone, all tokens at one common cosine, each layer a step "
    "dt at inverse temperature beta, from each prompt's own embedding. A common cosine can only rise."
)


def fitted(rows: pl.DataFrame, view: str = "raw") -> Overlay | None:
    """(beta, dt) fitted to the mean cosines of the prompts that have one at every layer.

    By default without centring, since the law is of the states' own directions. Prompts are spread evenly
    where there are more than `MOST`; a twin's curve is the mean over its draws. None of fewer than `FEWEST`
    prompts or two layers.

    Args:
        rows: tidy rows of `Particles`.
        view: whose; raw and centred have untrained twins beside them.
    """
    known = rows["view"].unique().to_list()
    if view not in known:
        return None
    names = [name for name in (view, CONTROLS.get(view)) if name in known]
    curves = [of_view(rows, name, "mean_cosine")[1] for name in names if name]
    whole = np.flatnonzero(np.isfinite(curves).all((0, 2)))
    if len(whole) < FEWEST or curves[0].shape[1] < 3:
        return None
    tokens = round(float(np.median(of_view(rows, view, "tokens")[1][whole])))
    # a prompt of fewer tokens may be below what the law of `tokens` begins above
    whole = whole[(curves[0][whole] > -1 / (tokens - 1)).all(1)]
    if len(whole) < FEWEST:
        return None
    taken = whole[np.linspace(0, len(whole) - 1, min(len(whole), MOST)).astype(int)]
    # cosines of float32 may be above 1 by rounding
    measured, *twin = (one[taken].clip(-1, 1) for one in curves)
    if not twin:
        return overlay(measured, tokens)
    return overlay(measured, tokens, twin=twin[0], twins=_draws(rows, CONTROLS[view]))


def _draws(rows: pl.DataFrame, control: str) -> int:
    """How many draws a control's numbers are the mean of."""
    drawn = pl.col("view") == control
    return int(rows.filter(drawn).select(pl.col("draws").cast(pl.Int64).max()).item())


def plots(rows: pl.DataFrame) -> list[Plot]:
    """The model's curve, the fitted theory's and the twins', with the verdict; none of few prompts."""
    found = fitted(rows)
    if found is None:
        return []
    curves = {OWN: found.measured, LAW: found.fitted}
    if found.twin is not None:
        curves[TWIN] = found.twin
    layers = list(range(found.measured.shape[1]))
    table = pl.concat([table_of(resampled(one), layers, name) for name, one in curves.items()])
    figure = layer_lines(table, "mean cosine", line="line", names=list(curves))
    caption = f"{_words(found)} {prompts_of(table)}"
    return [Plot("Mean cosine, raw, and the theory", caption, figure, table)]


def _words(found: Overlay) -> str:
    errors = ", ".join(f"{name} {error}" for name, error in found.errors.items())
    return (
        f"The theory {found.verdict}. {SAYS} Fitted: beta {found.beta}, dt {found.dt}. "
        f"Root mean square error on prompts that a fit did not see: {errors}. Brackets and bands are 95% "
        f"bootstrap intervals over prompts, the theory's band at the fitted numbers. Of more than {MOST} "
        "prompts as many are taken, evenly spread; none with a mean cosine of -1 / (n - 1) or less, n the "
        "median number of tokens, from which the law does not begin."
    )
