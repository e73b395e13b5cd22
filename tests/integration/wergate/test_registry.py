"""The registry on real MLflow: SQLite, PostgreSQL, and a PostgreSQL-backed server; concurrent, killed, rolled back."""

import multiprocessing
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from tests.support.postgres import postgres_cluster
from tests.support.processes import free_port, running
from tests.trials import registry_worker as worker

from wergate.__main__ import cli
from wergate.commands.promote import promote
from wergate.commands.rollback import check, rollback
from wergate.errors import Refused, RegistryError
from wergate.registry.store import MlflowModel, open_model
from wergate.trail.moves import drifts
from wergate.trail.records import broken_links, trail
from wertune.base.contract import TICKET_PREFIX

VERSIONS = 2  # of each promoter
ROUNDS = 2  # so that a version comes back from where the others have brought it
# What MLflow imports only when it opens a database.
PRELOAD = ["mlflow.store.tracking.sqlalchemy_store", "mlflow.store.model_registry.sqlalchemy_store"]
BACKENDS = ("sqlite", "postgresql", "server")


@dataclass(frozen=True)
class Backend:
    """One store and models in it."""

    uri: str

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri, self.uri)

    def register(self, name: str, count: int) -> list[str]:
        """So many versions of a new model, without any weights."""
        self.client.create_registered_model(name)
        tags = {"wergate.registrar": "trainer"}
        made = (self.client.create_model_version(name, "s3://nowhere/model", tags=tags) for _ in range(count))
        return [str(version.version) for version in made]

    def model(self, name: str) -> MlflowModel:
        return worker.QuickModel(name, self.uri, self.uri)


@pytest.fixture(scope="module")
def processes() -> Iterator[multiprocessing.context.ForkServerContext]:
    """Processes that start from one which has imported MLflow and opened nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOAD, "tests.trials.registry_worker"])
    return context


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with postgres_cluster() as uri:
        yield uri


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory, lay_store: Callable[[Path], str]) -> Backend:
    return Backend(lay_store(tmp_path_factory.mktemp("sqlite")))


@pytest.fixture(scope="module")
def postgresql(postgres: str) -> Backend:
    return Backend(postgres)


@pytest.fixture(scope="module")
def server(postgres: str, postgresql: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """A server on the same database, reached over HTTP only."""
    postgresql.client.search_registered_models()  # makes the tables, before the server looks for them
    port, folder = free_port(), tmp_path_factory.mktemp("server")
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", postgres, "--port", str(port)]
    # With more workers their shared socket lacks TCP_NODELAY, and every answer waits 40 ms for an acknowledgement.
    command += ["--artifacts-destination", str(folder), "--workers", "1"]
    with running(command, port, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"):
        yield Backend(f"http://127.0.0.1:{port}")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    found: Backend = request.getfixturevalue(request.param)
    return found


def _ship(backend: Backend, name: str, version: str) -> None:
    registry = worker.registry_of(backend.model(name), backend.uri)
    worker.prepare(registry, version)
    promote(registry, version, "Production", worker.POLICY, worker.never)


def _promote_at_once(uris: list[str], backend: Backend, name: str, context: object) -> None:
    """One process for each URI promotes its versions in turns while another looks on; then everything is counted."""
    first, *versions = backend.register(name, VERSIONS * len(uris) + 1)
    _ship(backend, name, first)
    with multiprocessing.Manager() as manager, ProcessPoolExecutor(len(uris) + 1, mp_context=context) as pool:  # type: ignore[arg-type]
        done = manager.Event()
        onlooker = pool.submit(worker.look_on, backend.uri, name, done)
        shares = [versions[position :: len(uris)] for position in range(len(uris))]
        climbing = [
            pool.submit(worker.climb, uri, name, share, ROUNDS) for uri, share in zip(uris, shares, strict=True)
        ]
        try:
            moved = sum(future.result() for future in climbing)
        finally:
            done.set()
        looks, faults = onlooker.result()
    assert faults == []
    assert looks > 10
    assert moved == 2 * ROUNDS * len(versions)
    snapshot = backend.model(name).look()
    assert drifts(snapshot) == []
    assert not [key for key in snapshot.tags if key.startswith(TICKET_PREFIX)]
    records = trail(snapshot.tags)
    assert broken_links(records) == []
    wanted = dict.fromkeys(product(versions, ("Staging", "Production")), ROUNDS)
    wanted |= {(first, "Staging"): 1, (first, "Production"): 1}
    assert Counter((record.move.version, record.move.to_stage) for record in records) == wanted
    shipped = [record.move for record in records if record.move.to_stage == "Production"]
    assert [move.replaced for move in shipped] == ["", *(move.version for move in shipped[:-1])]
    assert snapshot.aliases["production"] == shipped[-1].version == snapshot.holders("Production")[0]
    assert snapshot.aliases["previous"] == shipped[-2].version


def test_concurrent_promotions_leave_one_production_and_lose_nothing(sqlite: Backend, processes: object) -> None:
    _promote_at_once([sqlite.uri] * 4, sqlite, "concurrent", processes)


def test_promoters_on_the_database_and_over_http_exclude_each_other(
    postgresql: Backend, server: Backend, processes: object
) -> None:
    """Two straight on PostgreSQL and two over HTTP: each pair among itself, too."""
    _promote_at_once([postgresql.uri, server.uri] * 2, server, "mixed", processes)


# Which write comes when is not the store's to say: each is died before on SQLite, a third of them on the others.
@pytest.mark.parametrize(
    ("backend", "first", "every"), [("sqlite", 0, 1), ("postgresql", 1, 3), ("server", 2, 3)], indirect=["backend"]
)
def test_kill_9_before_every_write_is_mended_by_the_next_command(
    backend: Backend, first: int, every: int, processes: multiprocessing.context.ForkServerContext
) -> None:
    name = "killed" + backend.uri[:4]
    versions = backend.register(name, 30 // every)
    _ship(backend, name, versions[0])
    for kills, version in enumerate(versions[1:]):
        dies_at = first + every * kills
        registry = worker.registry_of(backend.model(name), backend.uri)
        worker.prepare(registry, version)
        dying = processes.Process(target=worker.die_promoting, args=(backend.uri, name, version, dies_at))
        dying.start()
        dying.join()
        worker.let_time_pass(backend.model(name))
        before = registry.model.look()
        assert len(before.holders("Production")) == 1
        if dying.exitcode == 0:
            assert dies_at > 10
            break
        assert dying.exitcode == -signal.SIGKILL
        if kills % 2:
            check(registry, mend=True)
        else:
            promote(registry, version, "Production", worker.POLICY, worker.never)
        snapshot = registry.model.look()
        assert drifts(snapshot) == []
        assert len(snapshot.holders("Production")) == 1
        shipped = [record.move for record in trail(snapshot.tags) if record.move.to_stage == "Production"]
        assert snapshot.holders("Production") == [shipped[-1].version]
        assert all(move.approval and move.decision and move.decision.passed for move in shipped)
    else:
        pytest.fail("a promotion makes more writes than there are versions")
    assert not [key for key in registry.model.tags() if key.startswith(TICKET_PREFIX)]


def test_alias_and_stage_name_the_same_model_and_rollback_takes_both_back(backend: Backend) -> None:
    name = "rolled" + backend.uri[:4]
    versions = backend.register(name, 2)
    for version in versions:
        _ship(backend, name, version)
    rollback(worker.registry_of(backend.model(name), backend.uri), "loops")
    by_stage = backend.client.get_latest_versions(name, ["Production"])
    assert [str(found.version) for found in by_stage] == ["1"]
    assert str(backend.client.get_model_version_by_alias(name, "production").version) == "1"
    assert backend.client.get_model_version(name, "2").current_stage == "Archived"


def _evaluated(backend: Backend, name: str, version: str, errors: int = 1, finish: bool = True) -> str:
    """A run that carries a report, as `wertune evaluate` leaves it."""
    client = backend.client
    report = worker.make_report(name, version, errors)
    tags = {
        "wergate.report_for": f"{name}/{version}",
        "wergate.test_digest": report.sets["test"].digest,
        "wergate.report_digest": report.digest,
    }
    experiment = client.get_experiment_by_name(str(Path.cwd()))
    run_id = client.create_run(experiment.experiment_id, tags=tags).info.run_id
    client.log_text(run_id, report.model_dump_json(), "eval_report.json")
    if finish:
        client.set_terminated(run_id)
    return str(run_id)


@pytest.fixture
def in_sqlite(
    sqlite: Backend, tmp_path: Path, track_in: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> Backend:
    """The SQLite store as the one that MLflow's settings name; artifacts go to the test's folder."""
    monkeypatch.chdir(tmp_path)
    track_in(sqlite.uri)
    sqlite.client.create_experiment(str(tmp_path), artifact_location=(tmp_path / "artifacts").as_uri())
    return sqlite


def test_the_report_is_the_newest_finished_one_of_exactly_this_version(in_sqlite: Backend) -> None:
    stale = _evaluated(in_sqlite, "reports", "1")
    in_sqlite.register("reports", 2)
    model = open_model("reports")
    versions = model.look().versions
    assert stale
    assert model.find_report(versions["1"], "") is None
    _evaluated(in_sqlite, "reports", "1", errors=1)
    newest = _evaluated(in_sqlite, "reports", "1", errors=2)
    _evaluated(in_sqlite, "reports", "1", errors=3, finish=False)
    found = model.find_report(versions["1"], "sha256:test")
    assert found is not None
    assert found.run_id == newest
    assert found.report == worker.make_report("reports", "1", errors=2)
    assert model.find_report(versions["1"], "sha256:other") is None
    assert model.find_report(versions["2"], "") is None
    in_sqlite.client.log_text(
        newest, worker.make_report("reports", "1", errors=0).model_dump_json(), "eval_report.json"
    )
    with pytest.raises(RegistryError, match=r"its tags promise reports/1 with .* evaluate the version again"):
        model.find_report(versions["1"], "")
    text = worker.make_report("reports", "1", errors=2).model_dump_json()
    damaged = ["[", "[]", text.replace('"duration_s":3.0', '"duration_s":NaN'), "[" * 10_000, "\udcff"]
    path = Path(in_sqlite.client.get_run(newest).info.artifact_uri.removeprefix("file://")) / "eval_report.json"
    for each in damaged:
        path.write_bytes(each.encode(errors="surrogateescape"))
        with pytest.raises(
            RegistryError, match=rf"run {newest}: eval_report\.json.*; put it back .*, or eval"
        ) as caught:
            model.find_report(versions["1"], "")
        assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(RegistryError, match=r"eval_report\.json is not there; put it back"):
        model.find_report(versions["1"], "")


def test_the_command_line_on_a_real_store(in_sqlite: Backend, capsys: pytest.CaptureFixture[str]) -> None:
    Path("policy.yaml").write_text("staging: [{kind: wer, limit: 0.5}]\nproduction: [{kind: wer, limit: 0.5}]\n")
    in_sqlite.register("typed", 2)
    run_id = _evaluated(in_sqlite, "typed", "1")
    _evaluated(in_sqlite, "typed", "2", errors=9)
    policy = ["--policy", "policy.yaml", "--model", "typed"]
    cli.main(["promote", *policy, "--version", "1", "--to", "Staging"], standalone_mode=False)
    cli.main(["approve", *policy, "--version", "1", "--approver", "bob"], standalone_mode=False)
    cli.main(["promote", *policy, "--version", "1", "--to", "Production"], standalone_mode=False)
    with pytest.raises(Refused, match="typed/2 may not go to Staging"):
        cli.main(["promote", *policy, "--version", "2", "--to", "Staging"], standalone_mode=False)
    cli.main(["history", "--model", "typed"], standalone_mode=False)
    cli.main(["check", "--model", "typed"], standalone_mode=False)
    assert "typed is as its audit trail says" in capsys.readouterr().out
    paths = sorted(file.path for file in in_sqlite.client.list_artifacts(run_id, "decisions"))
    assert [path.rsplit("-", 1)[1] for path in paths] == [
        "staging.html",
        "staging.json",
        "production.html",
        "production.json",
    ]
    assert in_sqlite.client.get_model_version("typed", "2").tags["wergate.staging"].startswith("refused by")
    with pytest.raises(RegistryError, match="Registered Model with name=absent not found"):
        cli.main(["history", "--model", "absent"], standalone_mode=False)
