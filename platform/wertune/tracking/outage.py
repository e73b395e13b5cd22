"""Which faults of a tracking store pass, and how long they are waited for."""

import errno
import logging
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from wertune.base.errors import ConfigError, TrackingError
from wertune.tracking.credentials import without_passwords

PATIENCE_VARIABLE = "WERTUNE_TRACKING_PATIENCE_S"
PATIENCE_S = 1200.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
NO_ROOM_BYTES = 2**16
# A hiccup that the second try gets over is not worth a line.
TOLD_FAILURES = 2
CREDENTIALS_REMEDY = (
    "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to what the server knows"
)

POSTGRES_REMEDY = "install wertune[postgres] and write the store's URI as postgresql+psycopg2://…"

# MLflow's own retries would hold one call for minutes, and repeat a creation whose answer was lost.
_QUICK = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
_REFUSALS = frozenset(
    {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "NOT_FOUND"}
)
# An operator mends these: a password, a proxy without its server, a limit of requests.
_WAITED_STATUSES = frozenset({401, 403, 404, 408, 425, 429})
_STATUS = re.compile(r"failed with error code (\d{3}) != ")
# MLflow calls a database's faults bad requests; SQLAlchemy's link tells them: interface, internal, pool, operation.
_DATABASE_FAULT = re.compile(r"sqlalche\.me/e/\w+/(?:rvf5|2j85|3o7r|e3q8)")
# Another process has written the row since MLflow looked for it, such as a data set of both: asked again, it is found.
_RACED = re.compile(r"UNIQUE constraint failed|duplicate key value violates|Duplicate entry")
_NO_ANSWER = re.compile(r"API request to (\S+?)/api/\S* failed with exception")
_STORES = frozenset({"azure", "boto3", "botocore", "google", "requests", "sqlalchemy", "urllib3"})

Answer = TypeVar("Answer")


def driver_remedy(error: ModuleNotFoundError) -> str:
    """What to install where a store's driver is missing: what SQLAlchemy takes for PostgreSQL may be another one."""
    return POSTGRES_REMEDY if (error.name or "").startswith("psycopg") else f"install {error.name}"


def is_temporary(error: Exception) -> bool:
    """Whether the same call may succeed later, once a server, a database, a store or a password is mended."""
    status = http_status(error)
    if status is not None:
        return status >= 500 or status in _WAITED_STATUSES
    code = getattr(error, "error_code", None)
    if code is not None:
        return code not in _REFUSALS or bool(_DATABASE_FAULT.search(str(error)) or _RACED.search(str(error)))
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _STORES


def http_status(error: Exception) -> int | None:
    """The status of an answer that was not MLflow's own, such as a proxy's, or of an artifact's upload."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):
        return status
    found = _STATUS.search(str(error))
    return int(found.group(1)) if found else None


def no_answer(error: Exception) -> str | None:
    """What to do where no server answers at all; None where one did."""
    found = _NO_ANSWER.search(str(error))
    return f"no MLflow server answers at {found[1]}; start it, or mend MLFLOW_TRACKING_URI" if found else None


def proxy_remedy(uri: str) -> str:
    """What to do where the environment sends requests to a server through a proxy; empty where it does not."""
    parts = urlsplit(uri)
    proxy = getproxies().get(parts.scheme)
    if parts.hostname is None or not proxy or proxy_bypass(parts.hostname):
        return ""
    name = f"{parts.scheme.upper()}_PROXY"
    return f"requests go through {name}={without_passwords(proxy)}; add {parts.hostname} to NO_PROXY, or mend the proxy"


def is_refused_user(error: Exception) -> bool:
    """Whether the server asks for other credentials: 401 and 403."""
    codes = ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED")
    return http_status(error) in (401, 403) or getattr(error, "error_code", None) in codes


def reason(error: Exception) -> str:
    """The fault in a few words, without passwords."""
    text = " ".join(str(error).split())
    if getattr(error, "errno", None) == errno.ENOSPC and shutil.disk_usage(tempfile.gettempdir()).free < NO_ROOM_BYTES:
        return f"no space left in {tempfile.gettempdir()}, where temporary files go; free some, or set TMPDIR"
    cause = re.search(r"\[Errno -?\d+\] ([^'\")\]]+)|(Read timed out)", text)
    return without_passwords((cause[1] or cause[2]).rstrip(": ") if cause else text)[:300] or type(error).__name__


class Backoff:
    """Pauses between tries that double from FIRST_PAUSE_S to LONGEST_PAUSE_S."""

    def __init__(self) -> None:
        self.failures = 0

    def pause_s(self) -> float:
        """The pause after one more failure."""
        self.failures += 1
        return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self.failures - 1, 16))


def patience_s() -> float:
    """How long a synchronous write waits for its store."""
    text = os.environ.get(PATIENCE_VARIABLE, str(PATIENCE_S))
    try:
        return float(text)
    except ValueError:
        raise ConfigError(
            f"{PATIENCE_VARIABLE} is {text!r}, but must be a number of seconds; mend or unset it"
        ) from None


def tell(text: str) -> None:
    """A line on the console."""
    print(text, flush=True)


def patiently(
    call: Callable[[], Answer],
    store: str,
    say: Callable[[str], None] = tell,
    wait_s: float | None = None,
    passes: Callable[[Exception], bool] = is_temporary,
) -> Answer:
    """The call's answer; one that fails for a while is repeated, so it must do no harm twice.

    `passes` tells whether a fault may be over later.
    Raises TrackingError when the store refuses it, or has not answered after `wait_s`, else `patience_s()`.
    """
    backoff, deadline = Backoff(), time.monotonic() + (patience_s() if wait_s is None else wait_s)
    with quick_requests():
        while True:
            try:
                answer = call()
            except Exception as error:
                _pause(error, store, backoff, deadline, say, passes)
            else:
                if backoff.failures >= TOLD_FAILURES:
                    say(f"{store} answers again")
                return answer


def _pause(
    error: Exception,
    store: str,
    backoff: Backoff,
    deadline: float,
    say: Callable[[str], None],
    passes: Callable[[Exception], bool],
) -> None:
    if not passes(error):
        if hasattr(error, "error_code"):
            raise TrackingError(f"{store} refused a write for good: {reason(error)}; mend what it names") from None
        raise error
    pause_s, left_s = backoff.pause_s(), deadline - time.monotonic()
    if left_s <= 0:
        remedy = CREDENTIALS_REMEDY if is_refused_user(error) else "mend it"
        raise TrackingError(
            f"{store} takes nothing, last: {reason(error)}; {remedy}, then run the command again, "
            f"a search with --resume; {PATIENCE_VARIABLE} is how long to wait for it"
        ) from None
    if backoff.failures == TOLD_FAILURES:
        say(f"{store} takes nothing ({reason(error)}); waiting for it up to {left_s:.0f} s")
    time.sleep(min(pause_s, left_s))


_lock = threading.Lock()
_holders = 0
_before: dict[str, Any] = {}


@contextmanager
def quick_requests() -> Iterator[None]:
    """MLflow's client answers or fails at once while any thread is inside, and leaves no traceback on the console."""
    global _holders
    with _lock:
        if not _holders:
            _hurry()
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if not _holders:
                _unhurry()


def _hurry() -> None:
    _before.update({name: os.environ.get(name) for name in _QUICK})
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = _QUICK["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", _QUICK["MLFLOW_HTTP_REQUEST_TIMEOUT"])
    logger = logging.getLogger("mlflow.store.db.utils")
    _before["level"] = logger.level
    logger.setLevel(logging.CRITICAL)


def _unhurry() -> None:
    logging.getLogger("mlflow.store.db.utils").setLevel(_before.pop("level"))
    for name, value in _before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    _before.clear()
