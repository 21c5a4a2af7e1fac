"""The layers of a model as a flow: how near each is to an Euler step, and to one of two fields."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from probes.flow.losses import block_runs
from probes.flow.orders import orders_of
from probes.flow.parts import AXES, PARTS, require_part
from probes.flow.views import viewed
from probes.twins import why_no_twin
from workbench.errors import PromptError, SettingError, UnsupportedError
from workbench.instrument import Citation, Measured, Named, Paced
from workbench.models.batch import Batch, Places
from workbench.models.positions import Positions
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import polars as pl
    import xarray as xr

    from workbench.figures.panels import Panel
    from workbench.report.sections import Section

__all__ = ["LayerFlow"]


@dataclass(frozen=True)
class LayerFlow(Paced):
    """Look at the layers as the steps of a flow x' = f(x), f = block(x) - x, beside an untrained twin's.

    Of each token and layer l, with dx = x_l - x_(l-1):

        step: ||dx|| / ||x_(l-1)||;
        turn: the cosine between dx and the step before;
        straightness: ||x_l - x_0|| / sum of the ||dx|| so far; steps at right angles have 1 / sqrt(l).

    The other parts run single blocks, each from the states that the model's own pass gives it:

        ode: ||Phi_N(x) - Phi_64(x)|| / ||dx||, where Phi_N goes through the block in N Euler steps of 1/N;
            N = 1 is the block. Near 0 where the block is an Euler step of its field's flow.
        integrated: the same against torchdiffeq's dopri5, and how far Phi_64 is from that (limit_error).
        bracket: ||DG F - DF G|| / ||dx||, F(x) what attention adds to x and G(x) what the MLP would; and
            swap: how far attention then MLP ends from MLP then attention, which the bracket is for small
            steps. Half the bracket is the leading error of taking the two after each other for following
            them together (Lie-Trotter).
        lyapunov: finite-depth exponents by Benettin's method from a random frame, of changes of the
            tokens' directions alone: lengths are held (directions=all: lengths too).
        orders: the change of the prompt's loss, mean -log p of its tokens behind the first, with the
            branches of all blocks, and of one block, in other orders (Strang's halves, among them the
            Macaron order; two half steps of the block); beside one block's output pushed as far in a
            random direction. Halves are Euler steps, which are not of Strang's second order.

    Costs of a prompt and layer, in runs of a block: ode limit + sum(substeps) + 1, bracket 8, lyapunov
    one an exponent, orders about 20 + 5 L; twice with the twin. The bracket and exponents run plain
    attention, whose memory grows with the square of the prompt.

    Attributes:
        parts: what to measure beside the path, of ode, integrated, bracket, lyapunov, orders; empty for the
            path alone.
        substeps: the N of the ODE defect.
        limit: the N that these are held against.
        tolerance: of the integration, relative to the smallest token's step.
        exponents: how many.
        directions: "tangent" for changes of the tokens' directions alone, "all" for lengths too.
        twin: whether to measure the untrained twin too; never of a model of over a billion parameters.
        seed: of the twin, the frame and the random pushes.
        positions: whose tokens are read; exponents and losses are of the whole prompt.

    Sources: Y. Lu et al. (2019), arXiv 1906.02762; G. Benettin et al., Meccanica 15 (1980).

    >>> result = LayerFlow(parts=("ode", "orders"))(model, "The Eiffel Tower")  # doctest: +SKIP
    """

    name: ClassVar[str] = "layer_flow"
    title: ClassVar[str] = "Model as flow"
    costly: ClassVar[bool] = True
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = MappingProxyType(
        {
            "step": (0.0, float("inf")),
            "turn": (-1.0, 1.0),
            "straightness": (0.0, 1.0),
            "ode_defect": (0.0, float("inf")),
            "integrated_defect": (0.0, float("inf")),
            "bracket": (0.0, float("inf")),
            "swap": (0.0, float("inf")),
        }
    )
    citation: ClassVar[Citation] = Citation(
        "Layers were read as Euler steps of a flow and their branches as a splitting of it (Lu et al., "
        "2019), with finite-depth exponents by the method of Benettin et al. (1980) where they are given "
        "({settings}).",
        "@article{lu2019understanding,\n"
        "  title={Understanding and Improving Transformer From a Multi-Particle Dynamic System Point of "
        "View},\n"
        "  author={Lu, Yiping and Li, Zhuohan and He, Di and Sun, Zhiqing and Dong, Bin and Qin, Tao and "
        "Wang, Liwei and Liu, Tie-Yan},\n"
        "  journal={arXiv preprint arXiv:1906.02762},\n"
        "  year={2019}\n"
        "}\n"
        "@article{benettin1980lyapunov,\n"
        "  title={Lyapunov Characteristic Exponents for Smooth Dynamical Systems and for Hamiltonian "
        "Systems; a Method for Computing All of Them},\n"
        "  author={Benettin, Giancarlo and Galgani, Luigi and Giorgilli, Antonio and Strelcyn, "
        "Jean-Marie},\n"
        "  journal={Meccanica},\n"
        "  volume={15},\n"
        "  pages={9--20},\n"
        "  year={1980}\n"
        "}",
    )

    parts: str | tuple[str, ...] = ()
    substeps: int | tuple[int, ...] = (1, 2, 4, 8)
    limit: int = 64
    tolerance: float = 1e-3
    exponents: int = 4
    directions: Literal["tangent", "all"] = "tangent"
    twin: bool = True
    seed: int = 0
    positions: Positions = "all"

    def __post_init__(self) -> None:
        if bad := [part for part in self.wanted if part not in PARTS]:
            raise SettingError(
                f"layer_flow: part {bad[0]!r}: expected some of {', '.join(PARTS)}, or none"
            )
        if type(self.limit) is not int or self.limit < 2:
            raise SettingError(f"layer_flow: limit is {self.limit!r}: expected 2 or more steps")
        if not self.steps or any(type(n) is not int or not 1 <= n < self.limit for n in self.steps):
            raise SettingError(
                f"layer_flow: substeps is {self.substeps!r}: expected whole numbers, 1 to below "
                f"limit={self.limit}"
            )
        if len(set(self.steps)) < len(self.steps):
            raise SettingError(f"layer_flow: substeps is {self.substeps!r}: expected each once")
        if type(self.exponents) is not int or self.exponents < 1:
            raise SettingError(f"layer_flow: exponents is {self.exponents!r}: expected 1 or more")
        if self.directions not in ("tangent", "all"):
            raise SettingError(
                f"layer_flow: directions is {self.directions!r}: expected tangent or all"
            )
        if not isinstance(self.tolerance, float) or not 0 < self.tolerance < 1:
            raise SettingError(
                f"layer_flow: tolerance is {self.tolerance!r}: expected a number between 0 and 1"
            )

    @property
    def wanted(self) -> tuple[str, ...]:
        """The parts that are measured, each once, in the order of `PARTS`; unknown ones last."""
        given = (self.parts,) if isinstance(self.parts, str) else tuple(self.parts or ())
        known = [part for part in PARTS if part in given]
        return (*known, *(part for part in given if part not in PARTS))

    @property
    def steps(self) -> tuple[int, ...]:
        """The numbers of substeps."""
        return self.substeps if isinstance(self.substeps, tuple) else (self.substeps,)

    def prepare(self, model: Model) -> None:
        """Refuse a model whose blocks cannot be run as the parts need.

        Raises:
            UnsupportedError: two stacks; no single blocks on this engine; no next tokens; no twin.
            SettingError: weights of half precision; more exponents than directions; no torchdiffeq.
        """
        if len(model.stacks) > 1:
            raise UnsupportedError(
                f"{model.name}: layer_flow needs one stack of blocks, whose layers are one flow: use a "
                "decoder or an encoder"
            )
        for part in self.wanted:
            require_part(part, model)
        if "lyapunov" in self.wanted and self.exponents >= model.d_model:
            raise SettingError(
                f"layer_flow: exponents is {self.exponents}: expected at most {model.d_model - 1}, the "
                "directions of one token"
            )
        self.views(model)

    def accept(self, prompt: EncodedPrompt) -> None:
        """Refuse a prompt without a next token where losses are asked for."""
        if "orders" in self.wanted and len(prompt) < 2:
            raise PromptError(
                f"layer_flow: prompt {prompt.text[:40]!r} is one token long, so it has no loss: give two or "
                "more, or leave orders out of parts"
            )

    def views(self, model: Model) -> dict[str, Model]:
        """What is measured: the model, and its twin where there is one."""
        found = {"model": model}
        if self._has_twin(model):
            found["random"] = model.twin(self.seed)
        return found

    def _has_twin(self, model: Model) -> bool:
        return self.twin and why_no_twin(model) is None

    def remarks(self, model: Model) -> Sequence[str]:
        """Why the twin was left out."""
        why = why_no_twin(model) if self.twin else None
        return () if why is None else [f"No untrained twin beside the numbers: {why}"]

    def coords(self, model: Model) -> Mapping[str, Sequence[Any]]:
        """Views, layers 1..L, and the axes of the parts."""
        found: dict[str, Sequence[Any]] = {
            "view": list(self.views(model)),
            "layer": list(range(1, model.n_layers + 1)),
        }
        if "ode" in self.wanted:
            found["substeps"] = list(self.steps)
        if "lyapunov" in self.wanted:
            found["exponent"] = list(range(1, self.exponents + 1))
        if "orders" in self.wanted:
            found["order"] = orders_of(parallel=model.weights.parallel)
        return found

    def block_tokens(self, model: Model, prompts: Sequence[EncodedPrompt]) -> int | None:
        """Tokens times blocks, the twin's among them; None where an integrator says how many."""
        if "integrated" in self.wanted:
            return None
        depth = model.n_layers
        runs = {
            "ode": depth * (self.limit + sum(self.steps) + 1),
            "bracket": depth * 8,
            "lyapunov": depth * self.exponents,
        }
        if "orders" in self.wanted:
            runs["orders"] = block_runs(depth, parallel=model.weights.parallel)
        each = depth + sum(runs[part] for part in self.wanted)
        return (1 + self._has_twin(model)) * each * sum(map(len, prompts))

    def drive_paced(
        self, model: Model, batch: Batch, pace: Callable[[float], None]
    ) -> tuple[Places, Measured]:
        """As `drive`, saying how far it is."""
        places = batch.places(self.positions)
        found = viewed(self, self.views(model), batch, places, pace)
        return places, {
            name: Named(("place", "view", *AXES[name][0]), values, AXES[name][1])
            for name, values in found.items()
        }

    @classmethod
    def rows(cls, data: xr.Dataset) -> Iterator[dict[str, Any]]:
        """One row a (prompt, view, layer, position); a prompt's exponents and losses in rows of their own."""
        from probes.flow.rows import rows

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
        """Medians over tokens with their quartiles, and means over prompts, along the layers.

        Args:
            data, theme: as for every instrument.
            prompt: one prompt's alone; all prompts where None.
            selected: the (layer, position) to mark.
            options: there are none.
        """
        from probes.flow.figures import figure

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
        """Path, defects, stretch and loss of one place along the layers, the twin's as controls."""
        from probes.flow.panels import panels
        from workbench.figures.generic import at_place

        return panels(at_place(data, prompt, position).expand_dims("place"))

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
        """The numbers of one layer and token, each beside the twin's."""
        from probes.flow.facts import facts

        return facts(data, layer=layer, prompt=prompt, position=position)

    @classmethod
    def section(cls, rows: pl.LazyFrame, data: xr.Dataset | None = None) -> Section:
        """How near the layers are to a flow, and what other orders cost, beside the twin."""
        from probes.flow.report import section

        return section(rows)
