"""Jobs: measurements that a worker process does while a page or a notebook goes on.

>>> from workbench.jobs import Desk, ModelSpec, Request
>>> with Desk("jobs", {"atlas": ModelSpec("atlas")}) as desk:  # doctest: +SKIP
...     job = desk.wait(desk.submit(Request("atlas", "Rome is in", [LogitLens()])))
...     desk.result(job.results["logit_lens"]).plot()
"""

from workbench.jobs.desk import Desk
from workbench.jobs.home import default_home
from workbench.jobs.job import Job, LogLine
from workbench.jobs.process import WorkerState
from workbench.jobs.request import Request
from workbench.jobs.spec import ModelSpec

__all__ = ["Desk", "Job", "LogLine", "ModelSpec", "Request", "WorkerState", "default_home"]
