"""Every error that a user can cause; each message gives the value, the rule, the place and the remedy.

WertuneError
 ├─ ConfigError        project.yaml, search.yaml, lexicon.yaml or a command-line parameter
 ├─ ManifestError      a manifest's rows (all faults of all rows at once)
 ├─ BaseModelError     the weights that base_model names
 ├─ AudioError         one recording that cannot be used
 ├─ RequestError       what is asked of the served model
 ├─ AdapterError       a saved adapter that cannot be loaded
 ├─ ExportError        what is handed out and does not load, or is worse than the version
 ├─ StorageError       a disk that is full or cannot be written
 │   └─ SearchStorageError  the one that a search runs from: no trial is at fault
 ├─ StateError         a trial's stored state that cannot be used
 ├─ OutOfMemory        a trial that needs more memory than there is
 ├─ WorkersLost        a trial's worker that is gone or silent, after which the trial goes on with others
 ├─ SynthesisError     a speech engine that is missing or failed
 └─ TrackingError      the MLflow server or store
"""

from collections.abc import Mapping
from typing import Any


def first_line(error: BaseException) -> str:
    """What a library's error says, without the pages that may follow; its kind, where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class WertuneError(Exception):
    """Base of all errors that end a command with a message and no traceback; `details` are for programs."""

    details: Mapping[str, Any] = {}


class ConfigError(WertuneError):
    """A value in a YAML file or on the command line breaks its rule."""


class ManifestError(WertuneError):
    """One or more rows of a manifest break a rule."""


class BaseModelError(WertuneError):
    """The base model cannot be found, read or trusted."""


class AudioError(WertuneError):
    """A recording cannot be decoded or breaks a limit."""


class RequestError(WertuneError):
    """A request to the served model breaks a limit or names what it may not."""


class AdapterError(WertuneError):
    """An adapter's files are missing, damaged or made for another base model."""


class ExportError(WertuneError):
    """An export has no place, cannot be loaded by plain libraries, or is worse there than its version."""


class StorageError(WertuneError):
    """A folder cannot take what was to be stored there."""


class SearchStorageError(StorageError):
    """The disk that a search runs from cannot take a trial's state: the search ends, and goes on when resumed."""


class StateError(WertuneError):
    """A trial's stored state is damaged or of another trial."""


class OutOfMemory(WertuneError):
    """A trial does not fit the memory, with its batch halved too."""


class WorkersLost(WertuneError):
    """One of a trial's workers is gone, or silent: the trial goes on from its last epoch, with others.

    `is_silent` where the others waited for as long as they may: it may still be there.
    """

    def __init__(self, message: str, is_silent: bool = False) -> None:
        super().__init__(message)
        self.is_silent = is_silent


class SynthesisError(WertuneError):
    """A speech engine is missing or gave no usable audio."""


class TrackingError(WertuneError):
    """The tracking store cannot be reached or refuses what was asked."""
