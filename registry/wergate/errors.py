"""What a command of the registry may end with; each message gives the value, the rule, the place and the remedy.

WertuneError
 └─ RegistryError      the registry does not hold what was asked for, or does not answer
     ├─ Refused        a gate, a missing approval or a rule says no; nothing was moved
     └─ LockError      another promoter has the model's lock
         └─ LockLost   this one had it, or waited for it, and was silent for too long
             └─ client.Overtaken  the same, after the move had begun
"""

from collections.abc import Mapping
from typing import Any

from wertune.base.errors import WertuneError


class RegistryError(WertuneError):
    """The registry lacks a version, report or record, or has drifted from its audit trail."""

    def __init__(self, reason: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.details = details or {}


class Refused(RegistryError):
    """A move that the rules forbid; where gates were asked, with their `decision` as JSON has it, and as a table."""

    def __init__(self, reason: str, table: str = "", decision: Mapping[str, Any] | None = None) -> None:
        super().__init__(reason, {"moved": False, "refused": reason, "decision": decision})
        self.table, self.decision = table, decision


class LockError(RegistryError):
    """Another promoter holds the model."""


class LockLost(LockError):
    """The lock, or the place in the line for it, is no longer this process's; nothing may be moved any more."""
