"""Which instruments a run has, and with which settings."""

from __future__ import annotations

import functools
import sys
from collections.abc import Collection, Mapping

from workbench.instrument import Instrument, Reading, find, names
from workbench.settings import configure, required, settings_of

__all__ = [
    "ALWAYS",
    "configured",
    "defaults",
    "kinds",
    "of_one_prompt",
    "shares_the_pass",
    "together",
]

ALWAYS = "logit_lens"
PRESETS = {
    ALWAYS: {"top_k": "10", "sites": "resid_post,attn_out,mlp_out"},
    "attention": {"patterns": "true"},
    "input_attribution": {"positions": "all"},
    "layer_flow": {"parts": "ode,bracket,lyapunov,orders"},
}


def kinds() -> Mapping[str, type[Instrument]]:
    """The installed instruments by name, the one that is always measured first."""
    return _kinds(tuple(sys.path))


@functools.cache
def _kinds(path: tuple[str, ...]) -> Mapping[str, type[Instrument]]:
    """Kept for each search path: to look through all packages takes longer than a figure."""
    return {name: find(name) for name in sorted(names(), key=lambda name: name != ALWAYS)}


def of_one_prompt() -> Mapping[str, type[Instrument]]:
    """Those that say something of a single prompt, which the Inspector shows."""
    return {name: kind for name, kind in kinds().items() if not kind.needs_set}


def defaults(name: str) -> dict[str, str]:
    """The settings that the page starts with, as texts: the instrument's own but for a few.

    Raises:
        SettingError: there is no such instrument.
    """
    own = {setting.name: setting.default for setting in settings_of(find(name))}
    return own | PRESETS.get(name, {})


def configured(name: str, settings: Mapping[str, str]) -> Instrument:
    """The instrument with the page's defaults, and `settings` over them.

    Raises:
        SettingError: there is no such instrument or setting, or it refuses a value.
    """
    chosen = {**_preset(name, settings), **settings}
    return configure(name, [f"{setting}={text}" for setting, text in chosen.items()])


def _preset(name: str, settings: Mapping[str, str]) -> Mapping[str, str]:
    """The page's defaults; a file that an instrument reads with may not go with all of them."""
    preset, usual = PRESETS.get(name, {}), defaults(name)
    given = [it for it in kinds()[name].files if settings.get(it, usual[it]) != usual[it]]
    return {k: v for k, v in preset.items() if k != "sites"} if given else preset


def together(off: Collection[str]) -> list[str]:
    """The instruments that share the pass of every run, but for those switched off."""
    shared = [name for name, kind in kinds().items() if shares_the_pass(kind)]
    return [name for name in shared if name == ALWAYS or name not in off]


def shares_the_pass(kind: type[Instrument]) -> bool:
    """Whether it is measured with every prompt; otherwise it is run from its own tab."""
    return issubclass(kind, Reading) and not kind.costly and not required(kind)
