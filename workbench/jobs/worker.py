"""The worker process: loads the models of one device and does the jobs that its desk queues.

Its settings are the first line on stdin, as JSON. Any later line wakes it to look into the table;
the end of stdin means that the desk is gone, and ends it.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from workbench.errors import WorkbenchError
from workbench.jobs.database import Database
from workbench.jobs.folder import ResultFolder
from workbench.jobs.home import Home
from workbench.jobs.roster import Roster
from workbench.jobs.shelf import Shelf
from workbench.jobs.spec import ModelSpec
from workbench.jobs.table import Table
from workbench.jobs.task import Task, Tools
from workbench.jobs.texts import Texts

__all__ = ["Worker", "main"]

LIBRARIES = ("transformers.modeling_utils", "xarray", "h5netcdf")
LAST_SECONDS = 1.0  # that a batch has to end in once the desk is gone


class Worker:
    """Does one job after another, and urgent ones between two batches of a long one."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        home = Home(Path(config["home"]))
        database = Database(home.database)
        models = {name: ModelSpec.of(plain) for name, plain in config["models"].items()}
        self._desk, self._device = config["desk"], config["device"]
        self._preload, self._threads = config["preload"], config["threads"]
        self._roster = Roster(database)
        self._tools = Tools(
            Table(database),
            Texts(database),
            ResultFolder(home.results),
            Shelf(models, self._device),
        )
        self._wake, self._gone = threading.Event(), threading.Event()

    def run(self) -> None:
        """Work until the desk is gone."""
        threading.Thread(target=self._listen, daemon=True).start()
        self._warm_up()
        self._roster.ready(self._desk, self._device)
        while not self._gone.is_set():
            self._wake.clear()
            if not self._next():
                self._wake.wait()

    def _listen(self) -> None:
        while os.read(sys.stdin.fileno(), 1024):
            self._wake.set()
        self._gone.set()
        self._wake.set()
        time.sleep(LAST_SECONDS)
        os._exit(1)

    def _warm_up(self) -> None:
        """Do what the first job would have to wait for."""
        import torch
        from transformers.utils import logging

        for library in LIBRARIES:
            import_module(library)
        logging.disable_progress_bar()
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        if self._preload is None or self._tools.table.waits(self._desk, self._device):
            return
        try:
            self._tools.shelf.model(self._preload)
        except WorkbenchError as error:  # the first job that asks for it will say so too
            sys.stderr.write(f"{error}\n")

    def _next(self) -> bool:
        """Do the next job; False where none waits."""
        job = self._tools.table.claim(self._desk, self._device)
        if job is not None:
            Task(self._tools, job, self._gone, self._urgent if not job.urgent else None).run()
        return job is not None

    def _urgent(self) -> None:
        """Do every urgent job that waits."""
        table = self._tools.table
        while not self._gone.is_set() and (
            job := table.claim(self._desk, self._device, urgent=True)
        ):
            Task(self._tools, job, self._gone, None).run()


def main() -> None:
    """Entry point of the process."""
    faulthandler.enable()
    Worker(json.loads(sys.stdin.readline())).run()
    os._exit(0)  # every file is closed; taking the libraries apart would take a second


if __name__ == "__main__":
    main()
