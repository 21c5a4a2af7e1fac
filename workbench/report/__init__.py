"""Reports: a prompt set and instruments become a folder that a person and a program can read."""

from workbench.report.headway import Headway
from workbench.report.reading import PromptSource, survey
from workbench.report.run import Summary, report

__all__ = ["Headway", "PromptSource", "Summary", "report", "survey"]
