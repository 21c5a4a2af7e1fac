"""The desk's hold on one worker process: start it, wake it, and start it again when it dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

from workbench.jobs.home import Home
from workbench.jobs.roster import Roster
from workbench.jobs.table import Table

__all__ = ["WorkerProcess", "WorkerState"]

PAUSES = (0.0, 0.5, 2.0)  # seconds before each new try, while it dies before it is ready
STOP_SECONDS = 1.5  # a little more than a worker gives its last batch


@dataclass(frozen=True)
class WorkerState:
    """A worker as it is now.

    Attributes:
        device: what it works on.
        pid: its process; None where there is none.
        state: starting, idle, busy or dead.
        error: why it is dead, in one line.
    """

    device: str
    pid: int | None
    state: str
    error: str | None = None


class WorkerProcess:
    """A worker that is there again after its process has died.

    A thread waits for the process to end; it then ends the jobs that the worker was at, and starts
    the next one. A process that dies over and over before it is ready is given up.
    """

    def __init__(self, home: Home, roster: Roster, table: Table, config: Mapping[str, Any]) -> None:
        self.device: str = config["device"]
        self._desk: str = config["desk"]
        self._home, self._roster, self._table, self._config = home, roster, table, config
        self._process: subprocess.Popen[bytes] | None = None
        self._error: str | None = None
        self._guard = threading.Lock()  # of _process and of its stdin
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._supervise, daemon=True)

    def start(self) -> None:
        """Start the process; returns at once."""
        self._thread.start()

    def wake(self) -> None:
        """Have it look into the table; nothing where it is about to start, since it will."""
        if self._error is not None:
            self._table.fail_queued(self._desk, self.device, self._error)
            return
        with self._guard:
            if self._process is not None:
                _write(self._process.stdin, b"\n")

    def kill(self) -> None:
        """Kill the process; another takes its place."""
        with self._guard:
            if self._process is not None:
                self._process.kill()

    def stop(self) -> None:
        """End the process for good."""
        self._stopping.set()
        if not self._thread.is_alive():
            return
        with self._guard:
            if self._process is not None:
                _close(self._process.stdin)
        self._thread.join(STOP_SECONDS)
        self.kill()
        self._thread.join()

    def state(self) -> WorkerState:
        """What it is doing."""
        process = self._process
        if self._error is not None:
            return WorkerState(self.device, None, "dead", self._error)
        if process is None or process.returncode is not None:
            return WorkerState(self.device, None, "dead" if self._stopping.is_set() else "starting")
        if not self._roster.is_ready(self._desk, self.device, process.pid):
            return WorkerState(self.device, process.pid, "starting")
        busy = bool(self._table.running(self._desk, self.device))
        return WorkerState(self.device, process.pid, "busy" if busy else "idle")

    def _supervise(self) -> None:
        try:
            self._keep_one_alive()
        except Exception as error:  # a worker without its supervisor would leave jobs waiting
            self._error = f"the worker of {self.device} cannot be kept alive: {error}"
            self.kill()
            raise

    def _keep_one_alive(self) -> None:
        failures = 0
        while (process := self._spawn()) is not None:
            code = process.wait()
            with self._guard:
                _close(process.stdin)
            if self._stopping.is_set():
                return
            self._roster.lose(
                self._desk,
                self.device,
                f"the worker process {_ending(code)} in mid-job and has been restarted: retry it",
            )
            ready = self._roster.is_ready(self._desk, self.device, process.pid)
            failures = 0 if ready else failures + 1
            if failures > len(PAUSES):
                self._give_up(code)
                return
            self._stopping.wait(PAUSES[failures - 1] if failures else 0.0)

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        """A new process; None where there is to be none."""
        with self._guard, self._home.log(self.device).open("ab") as log:
            if self._stopping.is_set():
                return None
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "workbench.jobs.worker"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONPATH": _import_path()},
                start_new_session=True,  # an interrupt at the terminal is the desk's to answer
            )
            _write(self._process.stdin, json.dumps(self._config).encode() + b"\n")
            return self._process

    def _give_up(self, code: int) -> None:
        self._error = (
            f"the worker of {self.device} cannot start: its process {_ending(code)}; see "
            f"{self._home.log(self.device)}"
        )
        self._table.fail_queued(self._desk, self.device, self._error)


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was killed ({signal.Signals(-code).name}, signal {-code})"


def _import_path() -> str:
    """This process's import path, so that the worker finds the same instruments."""
    return os.pathsep.join(os.path.abspath(entry) for entry in sys.path)


def _write(stream: IO[bytes] | None, line: bytes) -> None:
    """Write to a process that may have died: its supervisor sees to that."""
    assert stream is not None
    try:
        stream.write(line)
        stream.flush()
    except (OSError, ValueError):
        return


def _close(stream: IO[bytes] | None) -> None:
    assert stream is not None
    try:
        stream.close()
    except OSError:  # what was still to be written has no reader
        return
