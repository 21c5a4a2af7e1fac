"""Sending a trace to NDIF and waiting for what it saves, within a time limit.

NDIF runs traces on models that stay on its machines (https://ndif.us). What is sent is the source
of the trace's block and the tensors it names; what comes back are the tensors it saves.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from typing import Any

import torch

from workbench.errors import ModelError
from workbench.models.nnsight.contained import nnsight
from workbench.models.nnsight.deadline import cut_at
from workbench.models.nnsight.packing import packed

__all__ = ["Ndif", "ndif_key"]

# NDIF knows a model by the class that wraps it, and its name.
WRAPPER = "nnsight.modeling.transformers.TransformersModel"


def ndif_key() -> str:
    """The user's key for NDIF.

    Raises:
        ModelError: there is none.
    """
    key = os.environ.get("NDIF_API_KEY") or nnsight().CONFIG.API.APIKEY
    if not key:
        raise ModelError(
            "remote=True needs a key for NDIF: set NDIF_API_KEY (https://login.ndif.us gives one), or "
            "load the model without remote"
        )
    return str(key)


def ndif_host() -> str:
    """Where NDIF is: NDIF_HOST, or what nnsight's configuration says."""
    return str(os.environ.get("NDIF_HOST") or nnsight().CONFIG.API.HOST).rstrip("/")


@dataclass
class Ndif:
    """Runs traces of one model on NDIF: what nnsight calls a backend.

    Attributes:
        model: the model's name on the hub.
        revision: its revision; None for its main one.
        environment: settings of the model for a pass, such as its attention.
        seconds: how long one pass may take, from first to last byte, waiting included.
        pause: seconds between two questions whether it is done.
    """

    model: str
    revision: str | None
    environment: Mapping[str, Any]
    seconds: float
    pause: float = 0.5
    host: str = field(default_factory=ndif_host)
    key: str = field(default_factory=ndif_key, repr=False)

    def __call__(self, tracer: Any) -> None:
        """Run the trace's block there, and put what it saves into the frame that it stands in."""
        body = packed(tracer)
        end = time.monotonic() + self.seconds
        job = self._submitted(body, end)
        while (place := self._done(job, end)) is None:
            time.sleep(min(self.pause, self._left(end)))
        found = self._unpacked(self._content(self._asked(end, "GET", place)))
        save, push = nnsight().save, import_module("nnsight.tracing.util").push
        push(tracer.info.frame, {name: save(value) for name, value in found.items()})

    def _submitted(self, body: bytes, end: float) -> str:
        """The number of the job that was made of a packed pass."""
        key = {"repo_id": self.model, "revision": self.revision, "task": "text-generation"}
        request = {"model_key": f"{WRAPPER}:{json.dumps(key)}", "env": dict(self.environment)}
        answer = self._asked(
            end,
            "POST",
            f"{self.host}/request",
            headers=self._headers(),
            data={"data": json.dumps(request | {"session_id": "", "compress": False})},
            files={"blob": ("request", body, "application/octet-stream")},
        )
        return str(self._said(answer)["id"])

    def _done(self, job: str, end: float) -> str | None:
        """Where the result lies; None while there is none.

        Raises:
            ModelError: the pass failed there.
        """
        answer = self._asked(end, "GET", f"{self.host}/response/{job}", headers=self._headers())
        if answer.status_code == 404:  # it has said nothing of the job yet
            return None
        said = self._said(answer)
        if said["status"] == "ERROR":
            lines = str(said.get("description") or "no reason given").strip().splitlines()
            raise ModelError(f"NDIF could not run {self.model}: {lines[-1]}")
        return str(said.get("data")) if said["status"] == "COMPLETED" else None

    def _asked(self, end: float, method: str, url: str, **more: Any) -> Any:
        import httpx

        try:
            with cut_at(end) as trace, httpx.Client(timeout=self._left(end)) as client:
                answer = client.request(method, url, extensions={"trace": trace}, **more)
        except httpx.TimeoutException:
            raise self._late() from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self._left(end)
            raise ModelError(
                f"NDIF at {self.host} cannot be reached ({_line(error)}): check the network and NDIF_HOST, "
                "or load the model without remote"
            ) from error
        self._left(end)  # an answer that was cut can look like a whole one
        return answer

    def _left(self, end: float) -> float:
        """Seconds that are left.

        Raises:
            ModelError: none are.
        """
        left = end - time.monotonic()
        if left <= 0:
            raise self._late()
        return left

    def _late(self) -> ModelError:
        return ModelError(
            f"NDIF at {self.host} gave no answer within {self.seconds:g} s: try again later, or load the "
            "model with more remote_seconds"
        )

    def _content(self, answer: Any) -> bytes:
        if answer.status_code in (401, 403):
            raise ModelError(
                f"NDIF at {self.host} refused the key ({answer.status_code}): check NDIF_API_KEY"
            )
        if answer.status_code >= 400:
            raise ModelError(
                f"NDIF at {self.host} answered {answer.status_code} ({_line(answer.text)}): try again later, "
                f"or see whether it serves {self.model}"
            )
        return bytes(answer.content)

    def _said(self, answer: Any) -> dict[str, Any]:
        """What NDIF says of a job: its number (id), its status, and more."""
        content = self._content(answer)
        try:
            said: dict[str, Any] = json.loads(content)
            return {"id": said["id"], "status": said["status"]} | said
        except (ValueError, KeyError, TypeError):
            raise ModelError(
                f"{self.host} did not answer as NDIF does: check NDIF_HOST, or try again later"
            ) from None

    def _unpacked(self, result: bytes) -> dict[str, Any]:
        # The format is NDIF's. Read with weights_only, it can hold tensors and plain values, not code.
        try:
            return dict(torch.load(io.BytesIO(result), map_location="cpu", weights_only=True))
        except Exception as error:
            raise ModelError(
                f"what NDIF at {self.host} sent back is no result ({_line(error)}): try again later"
            ) from error

    def _headers(self) -> dict[str, str]:
        return {
            "ndif-api-key": self.key,
            "ndif-timestamp": repr(time.time()),
            "nnsight-version": version("nnsight"),
            "python-version": sys.version,
        }


def _line(message: object) -> str:
    lines = str(message).strip().splitlines()
    return lines[0][:200] if lines else type(message).__name__
