"""What the registry's tests run in processes of their own: promoters, onlookers, and one that is killed."""

import json
import os
import signal
import time
from functools import partial
from multiprocessing.synchronize import Event
from typing import Any

from mlflow.tracking import MlflowClient

from wergate.commands.approve import approve
from wergate.commands.promote import promote
from wergate.gates.kinds.accuracy import WerGate
from wergate.gates.policy import ApprovalSettings, Policy
from wergate.registry.client import RegistryClient
from wergate.registry.locks import MAX_LEASE_S, database_lock, hold
from wergate.registry.store import MlflowModel
from wergate.trail.registered_model import FoundReport, Version
from wertune.base.contract import TICKET_PREFIX
from wertune.scores.bootstrap import BootstrapSettings
from wertune.scores.eval_report import Cost, EvalReport, Provenance, SetReport, UtteranceCounts

GATES = (WerGate(limit=0.5),)
POLICY = Policy(
    bootstrap=BootstrapSettings(resamples=200),
    approval=ApprovalSettings(forbid_self=True, expires_after_days=1),
    staging=GATES,
    production=GATES,
)
# On a machine that is busy with other things nobody is declared dead too early.
WAIT_S, LEASE_S = 3600.0, MAX_LEASE_S


def make_report(model: str, version: str, errors: int = 1) -> EvalReport:
    """Four clips of ten words with so many errors each."""
    clips = tuple(
        UtteranceCounts(
            id=f"clip {position}",
            speaker=f"speaker {position}",
            duration_s=3,
            reference="",
            hypothesis="",
            words=10,
            substitutions=errors,
            deletions=0,
            insertions=0,
            characters=50,
            character_errors=errors,
            lexicon_words=0,
            lexicon_errors=0,
            terms={},
            hypothesis_words=10,
            compression_ratio=1,
        )
        for position in range(4)
    )
    cost = Cost(
        trainable_parameters=1,
        trainable_percent=1,
        adapter_mb=1,
        peak_memory_mb=1,
        real_time_factor=1,
        baseline_real_time_factor=1,
    )
    return EvalReport(
        model=model,
        version=version,
        created="2026-01-01T00:00:00Z",
        sets={"test": SetReport(digest="sha256:test", utterances=clips)},
        baseline={},
        training_terms={},
        cost=cost,
        provenance=Provenance(),
    )


class QuickModel(MlflowModel):
    """MLflow's registry with reports out of thin air and no artifacts: these promotions are about the moves."""

    def find_report(self, version: Version, test_digest: str) -> FoundReport | None:
        return FoundReport("no run", make_report(self.name, version.number))

    def write_artifact(self, run_id: str, path: str, text: str) -> None: ...


class MortalModel(QuickModel):
    """The process is killed before its write number `dies_at`."""

    dies_at = -1
    writes = 0

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith(("set_", "delete_", "write_")):
            if self.writes == self.dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            self.writes += 1
        return found


def registry_of(model: MlflowModel, uri: str) -> RegistryClient:
    """As the command line makes it, on a store that is named."""
    lock = partial(hold, model, database_lock(uri, model.name), f"process {os.getpid()}", WAIT_S, LEASE_S)
    return RegistryClient(model, lock, "promoter")


def never(name: str, version: str) -> None:
    raise AssertionError(f"{name}/{version} has a report")


def prepare(registry: RegistryClient, version: str) -> None:
    """In Staging, approved."""
    promote(registry, version, "Staging", POLICY, never)
    approve(registry, version, "approver", "", POLICY)


def climb(uri: str, name: str, versions: list[str], rounds: int) -> int:
    """Brings the versions to Staging and then to Production, in turns; returns how many moves it was told of."""
    registry = registry_of(QuickModel(name, uri, uri), uri)
    moved = 0
    for version in versions * rounds:
        moved += promote(registry, version, "Staging", POLICY, never).moved
        approve(registry, version, "approver", "", POLICY)
        moved += promote(registry, version, "Production", POLICY, never).moved
    return moved


def look_on(uri: str, name: str, done: Event) -> tuple[int, list[list[int]]]:
    """Looks until it is done: how often, and every look that did not show exactly one Production."""
    client, looks, faults = MlflowClient(uri, uri), 0, []
    while not done.is_set():
        versions = client.search_model_versions(f"name='{name}'")
        present = [int(version.version) for version in versions if version.current_stage == "Production"]
        looks += 1
        if len(present) != 1:
            faults.append(present)
        time.sleep(0.1)
    return looks, faults


def die_promoting(uri: str, name: str, version: str, dies_at: int) -> None:
    """A promotion to Production that is killed on its way."""
    model = MortalModel(name, uri, uri)
    model.dies_at = dies_at
    promote(registry_of(model, uri), version, "Production", POLICY, never)


def let_time_pass(model: MlflowModel) -> None:
    """The tickets that the dead have left become as old as their lease."""
    for key, text in model.tags().items():
        if key.startswith(TICKET_PREFIX):
            model.set_tag(key, json.dumps(json.loads(text) | {"lease_s": 0.001}))
