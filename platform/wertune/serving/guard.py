"""Requests to the served model: one after another, each within its time, and what MLflow's server does before that.

`mlflow models serve` reads a body in a thread of its own before it asks the model: 80 kB of parquet become gigabytes
there, a body that cannot be read is answered with a traceback, and where more requests come than the machine has cores
and four, they wait unseen. MLflow has no switch for any of it. So the model, which its server loads before the first
request, puts `Guarded` in the place of the server's `invocations` and gives its event loop threads enough.
"""

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from threading import Lock, Semaphore
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    DEADLINE_EXCEEDED,
    INTERNAL_ERROR,
    INVALID_PARAMETER_VALUE,
    REQUEST_LIMIT_EXCEEDED,
    TEMPORARILY_UNAVAILABLE,
)

from wertune.base.config import ServingConfig

JSON = "application/json"
TOLD_CHARACTERS = 300  # of MLflow's own messages, which hold the input
REFUSING_THREADS = 8  # beside those that wait: who comes too late is told so at once

_logger = logging.getLogger(__name__)


class ServingError(MlflowException):  # type: ignore[misc]
    """What MLflow's server answers: an HTTP status (400, 413, 415, 429, 500, 503 or 504) and the reason alone."""

    def __init__(self, reason: str, error_code: int = INVALID_PARAMETER_VALUE, status: int | None = None) -> None:
        """`status` where it is not that of `error_code`."""
        super().__init__(reason, error_code=error_code)
        self.reason = reason
        self._status = status

    def get_http_status_code(self) -> int:
        """See `mlflow.exceptions.MlflowException`."""
        return self._status or int(super().get_http_status_code())

    def serialize_as_json(self) -> str:
        """Without the input, which the server puts before the message: megabytes of base64."""
        return json.dumps({"error_code": self.error_code, "message": self.reason})


class Clock:
    """How long a request may still take; without a limit any time."""

    def __init__(self, limit_s: float | None) -> None:
        self.limit_s = limit_s
        self._start_s = time.monotonic()

    @property
    def left_s(self) -> float:
        """As a lock takes it: -1 is for ever."""
        return -1 if self.limit_s is None else max(0.0, self._start_s + self.limit_s - time.monotonic())

    def check(self) -> None:
        """Raises ServingError when the time is over; the work ends here, since nobody waits for it any more."""
        if self.left_s == 0:
            rule = f"the answer would take more than {self.limit_s:g} s, which is the limit"
            raise ServingError(f"{rule}; send fewer or shorter recordings in a request", DEADLINE_EXCEEDED)


_clock: ContextVar[Clock | None] = ContextVar("clock", default=None)


class Turns:
    """One request after another, decoding included; bitsandbytes keeps state in the layers.

    Over HTTP each waits within its time, and only so many do.
    """

    def __init__(self, limits: ServingConfig) -> None:
        self._limits = limits
        self._lock = Lock()
        self._places = Semaphore(limits.max_waiting)

    @contextmanager
    def turn(self) -> Iterator[Clock]:
        """The request's clock, which runs since it came; ServingError where it cannot have its turn in time."""
        if held := _clock.get():  # the server's guard has its turn already
            yield held
            return
        clock = Clock(self._limits.max_answer_s if is_served() else None)
        if not self._places.acquire(blocking=clock.limit_s is None):
            rule = f"{self._limits.max_waiting} requests are waiting or being answered, which is the limit"
            raise ServingError(f"{rule}; ask again later", REQUEST_LIMIT_EXCEEDED)
        try:
            if not self._lock.acquire(timeout=clock.left_s):
                rule = f"the request waited {clock.limit_s:g} s for others, which is the limit"
                raise ServingError(f"{rule}; ask again later", TEMPORARILY_UNAVAILABLE)
            token = _clock.set(clock)
            try:
                yield clock
            finally:
                _clock.reset(token)
                self._lock.release()
        finally:
            self._places.release()


class Guarded:
    """MLflow's `invocations` in its turn, for JSON of bounded size alone, with a reason for each fault."""

    def __init__(self, unguarded: Callable[..., Any]) -> None:
        self.unguarded = unguarded

    def __call__(self, data: bytes, content_type: str | None, model: Any, input_schema: Any) -> Any:
        """The answer of `model`, whose python model has `turns` and `limits`; ServingError for every fault."""
        served = model.unwrap_python_model()
        kind = (content_type or "").partition(";")[0].strip()
        if kind != JSON:
            # Tables of text hold no recordings; those of parquet grow in reading, whatever the body's size.
            raise ServingError(
                f"Content-Type is {kind[:100] or 'not given'}, but must be {JSON}; send JSON", status=415
            )
        if len(data) > served.limits.max_request_bytes:
            rule = f"the request has {len(data)} bytes, but must have at most {served.limits.max_request_bytes}"
            raise ServingError(f"{rule}; send fewer recordings in a request, or as ogg/opus", status=413)
        with served.turns.turn():
            try:
                return self.unguarded(data, content_type, model, input_schema)
            except ServingError:
                raise
            except MlflowException as error:
                raise ServingError(_told(error)) from None
            except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets in brackets
                rule = f"the body cannot be read ({str(error)[:TOLD_CHARACTERS]})"
                raise ServingError(f"{rule}; send JSON with dataframe_records") from None
            except Exception as error:
                raise failed() from error


def failed() -> ServingError:
    """What a client is told of a fault that is not its own; MLflow would blame it and send it the traceback."""
    _logger.exception("a request failed")
    return ServingError("the model failed on this request; the server's log says why", INTERNAL_ERROR)


def _told(error: MlflowException) -> str:
    """MLflow's own reason: without the input that it puts before, and the advice behind."""
    reason = str(error.message).rpartition("\nError: ")[2].strip()
    return reason if len(reason) <= TOLD_CHARACTERS else f"{reason[:TOLD_CHARACTERS]}…"


def guard_server(limits: ServingConfig) -> None:
    """Where MLflow's server is loading a model, guards it; elsewhere nothing."""
    server = sys.modules.get("mlflow.pyfunc.scoring_server")
    if server is None:
        return
    server.invocations = Guarded(getattr(server.invocations, "unguarded", server.invocations))  # type: ignore[attr-defined]
    with suppress(RuntimeError):  # no event loop: another than uvicorn is loading it
        threads = ThreadPoolExecutor(limits.max_waiting + REFUSING_THREADS, thread_name_prefix="request")
        asyncio.get_running_loop().set_default_executor(threads)


def is_served() -> bool:
    """Whether requests may come from strangers; either sign of MLflow's is enough."""
    return "_MLFLOW_IS_IN_SERVING_ENVIRONMENT" in os.environ or "mlflow.pyfunc.scoring_server" in sys.modules
