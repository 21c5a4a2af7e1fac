"""Take the app's pictures anew, of this build: python examples/screenshots/make.py (some minutes)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

from playwright.sync_api import Page, sync_playwright

import workbench as wb
from app.server import create_app, listen
from lenses import (
    Attention,
    BackwardLens,
    DirectAttribution,
    EditEffect,
    InputAttribution,
    LogitLens,
    NeuronView,
    counterfactuals,
)
from probes import (
    Ablate,
    AttentionEntropy,
    CausalTrace,
    Interchange,
    LayerFlow,
    Particles,
    Patch,
    PathPatch,
    SparseProbe,
    TokenGeometry,
)
from workbench.atlas import prompts_path
from workbench.atlas.corpus import sentences
from workbench.instrument import Instrument
from workbench.jobs import Desk, ModelSpec, Request

HERE = Path(__file__).parent
SIMULATION = "simulate_page_light"
SET = "set"  # in a tab's place: the page Prompt sets
PROBED = (
    "relation=language",
    "relation=capital",
    "entity=person",
    "entity=landmark",
    "continent=Asia",
)
SITES = ("resid_post", "attn_out", "mlp_out")
EIFFEL = wb.Prompt(
    "The Eiffel Tower is located in the city of",
    target=" Paris",
    foil=" Rome",
    subject="Eiffel Tower",
)
Look = tuple[str, str, tuple[int, int], str]  # name of the picture, tab, size, more of the link


def swapped(prompt: wb.Prompt) -> wb.Prompt:
    """The prompt with the other name as its last giver, for patching."""
    before, _, after = prompt.text.rpartition(str(prompt.foil))
    return replace(prompt, corrupted=before + str(prompt.target) + after)


def jobs() -> Iterator[tuple[list[wb.Prompt], list[Instrument], list[Look]]]:
    """What is measured, and what is looked at."""
    lens, wide = LogitLens(sites=SITES), (1500, 1150)
    yield (
        [EIFFEL],
        [
            lens,
            Attention(patterns=True),
            DirectAttribution(),
            InputAttribution(positions="all"),
            BackwardLens(),
            CausalTrace(),
        ],
        [
            ("layers_light", "layers", (1900, 900), ""),
            ("logit_lens_light", "logit_lens", (1400, 1000), ""),
            ("logit_lens_dark", "logit_lens", (1400, 1000), ""),
            ("attention_light", "attention", wide, "&layer=2"),
            ("backward_lens_light", "backward_lens", wide, ""),
            ("direct_attribution_light", "direct_attribution", wide, ""),
            ("input_attribution_light", "input_attribution", wide, "&layer=6"),
            ("causal_trace_light", "causal_trace", (1500, 980), "&layer=3&position=5"),
            ("causal_trace_dark", "causal_trace", (1500, 980), "&layer=3&position=5"),
        ],
    )
    classics = list(wb.PromptSet.read(prompts_path("classics")))
    yield (
        classics,
        [
            LogitLens(),
            CausalTrace(samples=3),
            NeuronView(layer=4),
            LayerFlow(parts=("ode", "bracket", "lyapunov", "orders")),
        ],
        [
            ("layer_flow_light", "layer_flow", (1900, 1000), "&layer=3"),
            ("causal_trace_set_light", "causal_trace", (1500, 1200), ""),
            ("neurons_light", "neurons", (1500, 1200), ""),
        ],
    )
    givers = [swapped(p) for p in list(wb.PromptSet.read(prompts_path("indirect_object")))[:12]]
    yield (
        givers,
        [LogitLens(), Patch(), PathPatch(receivers=["v4.1"]), Ablate()],
        [
            ("patch_light", "patch", (1500, 1080), ""),
            ("path_patch_light", "path_patch", (1500, 1080), ""),
            ("ablate_light", "ablate", (1500, 1060), ""),
        ],
    )
    passage = wb.Prompt("\n".join(one.text for one in islice(sentences(2027), 5)))
    yield (
        [passage],
        [LogitLens(), AttentionEntropy()],
        [("attention_entropy_light", "attention_entropy", (1500, 1050), "&layer=2")],
    )
    yield (
        [EIFFEL],
        [LogitLens(), TokenGeometry()],
        [("token_geometry_light", "token_geometry", (1500, 1480), "&layer=4")],
    )
    edits = list(counterfactuals(wb.PromptSet.read(prompts_path("facts")), prompts=8))
    yield edits, [LogitLens(), EditEffect()], [("edit_light", "edit", (1500, 1200), "")]
    yield [EIFFEL], [LogitLens(), Particles()], [("particles_light", "particles", (1300, 1560), "")]
    facts = wb.PromptSet.read(prompts_path("facts"))
    probe = SparseProbe(labels="atlas_facts", features=PROBED, k=(1, 2, 4, 8, 16))
    yield (
        list(facts.subset(range(0, len(facts), 2))),
        [probe],
        [
            ("prompt_sets_light", SET, (1400, 1300), ""),
            ("sparse_probe_set_light", SET, (1400, 1700), ""),
            ("sparse_probe_neuron_light", SET, (1400, 1400), ""),
        ],
    )
    related = Interchange(subspace="means", pairs=64, draws=2)
    yield list(facts), [related], [("interchange_set_light", SET, (1400, 1300), "")]


@contextmanager
def serving() -> Iterator[tuple[Desk, str]]:
    """The app with its worker on the bundled model, and its address."""
    with TemporaryDirectory() as home:
        specs = {"atlas": ModelSpec("atlas")}
        desk = Desk(Path(home), specs, devices=["cpu"], preload="atlas", threads=1)
        desk.start()
        server = listen(create_app(desk), port=0)
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield desk, f"http://127.0.0.1:{server.port}/"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
            desk.stop()


def shoot_set(page: Page, address: str, look: Look) -> None:
    """One picture of the page Prompt sets, scrolled to what its name says."""
    name, _, (width, height), _ = look
    page.set_viewport_size({"width": width, "height": height})
    page.goto(address.replace("/?", "/sets/?"))
    page.locator(".set-body .js-plotly-plot .gtitle").last.wait_for(timeout=60_000)
    if name == "sparse_probe_neuron_light":
        page.get_by_role("button", name="Look into this neuron").click()
        page.locator("#probe-neuron .gtitle").wait_for(timeout=60_000)
    begins = {"prompt_sets_light": ".step", "sparse_probe_neuron_light": "#probe-units"}
    page.wait_for_timeout(3_000)
    page.evaluate(f"document.querySelector('{begins.get(name, '#set-head')}').scrollIntoView()")
    page.screenshot(path=HERE / f"{name}.png")


def shoot(page: Page, address: str, look: Look) -> None:
    """One picture."""
    name, tab, (width, height), more = look
    page.set_viewport_size({"width": width, "height": height})
    page.goto(f"{address}&tab={tab}{more}")
    page.locator("[role=tabpanel]:visible .js-plotly-plot").first.wait_for(timeout=60_000)
    if name.endswith("dark"):
        page.get_by_role("switch").first.click(force=True)
    if name == "causal_trace_set_light":
        page.get_by_role("textbox", name="Over").click()
        page.get_by_role("option", name="All prompts").click()
    page.wait_for_timeout(4_000)  # figures are drawn one after another
    page.screenshot(path=HERE / f"{name}.png")
    if name.endswith("dark"):
        page.get_by_role("switch").first.click(force=True)


def shoot_simulation(page: Page, address: str) -> None:
    """The page Simulate, with the phase diagram of its defaults."""
    page.set_viewport_size({"width": 1400, "height": 1200})
    page.goto(f"{address}simulate/?experiment=phase_diagram")
    page.locator(".set-figure .gtitle").wait_for(timeout=300_000)
    page.wait_for_timeout(2_000)
    page.screenshot(path=HERE / f"{SIMULATION}.png")


def main() -> None:
    """Take all of them, or those whose names begin with the first argument."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    with serving() as (desk, address), sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        page = browser.new_page()
        if SIMULATION.startswith(wanted):
            shoot_simulation(page, address)
        for prompts, instruments, every in jobs():
            looks = [look for look in every if look[0].startswith(wanted)]
            if not looks:
                continue
            number = desk.submit(Request("atlas", prompts, instruments))
            print(desk.wait(number).title)
            for look in looks:
                take = shoot_set if look[1] == SET else shoot
                take(page, f"{address}?job={number}", look)
        browser.close()


if __name__ == "__main__":
    main()
