"""What an adapter must reach to climb, written down and versioned: `registry/policies/<project>.yaml`."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from wergate.gates.kinds import AnyGate
from wergate.gates.kinds.delivery import ProvenanceGate
from wertune.base.config import Frozen, load_yaml
from wertune.base.errors import ConfigError
from wertune.scores.bootstrap import BootstrapSettings

Gates = tuple[AnyGate, ...]


class ApprovalSettings(Frozen):
    """Who may approve a move to Production, and for how long that holds."""

    forbid_self: bool = Field(True, description="who registered a version may not approve it")
    expires_after_days: float | None = Field(30.0, gt=0, le=36_500, description="null: never")


class Policy(Frozen):
    """The gates of None -> Staging and of Staging -> Production."""

    bootstrap: BootstrapSettings = BootstrapSettings()
    approval: ApprovalSettings = ApprovalSettings()
    staging: Gates = Field(description="what a version must pass to reach Staging; at least one of them blocks")
    production: Gates = Field(description="what a version in Staging must pass to be approved and go into Production")

    @field_validator("staging", "production")
    @classmethod
    def _guards(cls, gates: Gates) -> Gates:
        """At least one gate blocks, and no two have one name."""
        faults = []
        if not any(gate.blocks for gate in gates):
            faults.append("no gate blocks, so that anything would pass; add one with blocks: true")
        twice = [title for title, count in Counter(gate.title for gate in gates).items() if count > 1]
        faults += [f"two gates are called {title}; give one of them a name" for title in sorted(twice)]
        if faults:
            raise ValueError("; ".join(faults))
        return gates

    @model_validator(mode="after")
    def _one_test_set(self) -> Self:
        if len(frozen := self._frozen) > 1:
            raise ValueError(f"test_digest is {' and '.join(sorted(frozen))}; freeze one test set for both transitions")
        return self

    @property
    def _frozen(self) -> set[str]:
        gates = (*self.staging, *self.production)
        return {gate.test_digest for gate in gates if isinstance(gate, ProvenanceGate) and gate.test_digest}

    @property
    def test_digest(self) -> str:
        """The frozen test set's; empty where no gate freezes one."""
        return next(iter(self._frozen), "")

    @property
    def digest(self) -> str:
        """SHA-256 of canonical JSON: what a decision and an approval are bound to."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def gates(self, transition: str) -> Gates:
        """The gates of a move to `transition`; another word than staging or production is a ConfigError."""
        if transition == "staging":
            return self.staging
        if transition == "production":
            return self.production
        raise ConfigError(f"transition is {transition!r}, but must be staging or production")


def load_policy(path: Path) -> Policy:
    """The policy, or a ConfigError that lists all its faults."""
    if not path.exists():
        remedy = "`wertune init` makes one for a new project; start from that, or name another with --policy"
        raise ConfigError(f"the policy {path} does not exist; {remedy}")
    return load_yaml(path, Policy)
