"""Simulations in the app: what a link may ask for, how settings become links, and where jobs open."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from flask import Flask

import workbench as wb
from app import jobs_table, simulations
from app.bench import Bench
from app.link import Link
from app.measuring import open_link, pending
from app.pages import simulate
from app.simulations import configured, link_of, read_link, texts_of
from lenses import LogitLens
from probes.dynamics.experiments import PhaseDiagram, Run
from tests.app.test_bench import ASKED
from tests.app.test_set_results import texts
from workbench.jobs import Desk, Request

SMALL = {"betas": "0.5,2", "tokens": "4", "d": "6", "seeds": "2", "time": "1", "step": "0.1"}


def test_settings_are_those_of_the_command_line() -> None:
    assert configured("phase_diagram", {}) == PhaseDiagram()
    assert configured("phase_diagram", SMALL) == PhaseDiagram(
        betas=(0.5, 2), tokens=4, d=6, seeds=2, time=1, step=0.1
    )
    assert configured("phase_diagram", simulations.defaults("phase_diagram")) == PhaseDiagram()


@pytest.mark.parametrize("name", ["phase_diagram", "simulated_run", "staircase"])
def test_a_link_restores_a_simulation(name: str) -> None:
    for own in ({}, SMALL, {"betas": "3,"}):
        made = configured(name, own)
        assert configured(*read_link(f"?{link_of(made)}")) == made
        assert configured(name, texts_of(made)) == made
    assert link_of(configured(name, {"kernel": "usa", "seed": "0"})).count("&") <= 1


@pytest.mark.parametrize(
    ("search", "says"),
    [
        ("?experiment=nothing", "no experiment 'nothing': expected one of phase_diagram"),
        ("?experiment=staircase&tokens=1", "tokens is 1: expected a whole number, at least 2"),
        ("?experiment=staircase&tokens=", "tokens is : expected a whole number"),
        ("?experiment=staircase&kernel=rk4", "kernel is 'rk4': expected one of sa, usa"),
        ("?experiment=staircase&folder=/etc", "has no setting 'folder'"),
        ("?experiment=simulated_run&tokens=100000", "90,057,600,000: expected at most 67,108,864"),
        ("?experiment=simulated_run&step=1e-9", "at most 10,000,000 steps on a page"),
    ],
)
def test_a_link_is_refused_in_one_line(search: str, says: str) -> None:
    with pytest.raises(wb.SettingError, match=re.escape(says)):
        configured(*read_link(search))


def test_jobs_open_where_they_are_shown(desk: Desk) -> None:
    bench = Bench(desk)
    job = desk.wait(bench.simulate(configured("phase_diagram", SMALL)).id)
    shown = simulate._finished(job)
    assert shown["link"].startswith("experiment=phase_diagram&betas=0.5%2C2&tokens=4&d=6")
    assert desk.result(shown["key"]).plot().layout.title.text.startswith("4 tokens in 6 dimensions")
    row = jobs_table.table([job], None).children[1].children[0]
    assert "phase_diagram" in texts(row)
    assert row.children[-1].children.href == f"/simulate/?job={job.id}"
    running = replace(job, state="running", phase="simulating", done=3, total=9)
    assert jobs_table.progress(running) == "simulating, 3 of 9 steps"
    assert pending(job)["asked"]["model"] == ""
    with pytest.raises(wb.SettingError, match=f"a simulation: open /simulate/\\?job={job.id}"):
        open_link(bench, Link(job=job.id), ASKED)
    with pytest.raises(wb.SettingError, match="is a simulation"):
        bench.measurement(str(job.id))
    other = desk.wait(desk.submit(Request("atlas", "Rome is in", [LogitLens()])))
    with pytest.raises(wb.SettingError, match="is no simulation"):
        bench.simulation(str(other.id))
    for number in ("-1", "x", "9" * 40, "99999"):
        with pytest.raises(wb.SettingError, match="no job"):
            bench.simulation(number)


def test_a_stored_simulation_is_there_at_once(desk: Desk) -> None:
    bench, wanted = Bench(desk), configured("simulated_run", SMALL)
    first = desk.wait(bench.simulate(wanted).id)
    again = desk.wait(bench.simulate(Run(**wanted.settings())).id)
    assert again.results == first.results
    assert "the stored result serves" in again.log[0].line


def test_every_setting_has_its_field(server: Flask) -> None:
    client = server.test_client()
    layout = client.get("/simulate/_dash-layout", base_url="http://127.0.0.1:8050").get_data(True)
    for name, kind in simulations.kinds().items():
        assert kind.title in layout
        for setting in simulations.defaults(name):
            assert f'"setting":"{setting}"' in layout.replace(": ", ":")
