"""A PostgreSQL of a test's own, from Debian's packages."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.processes import Service, free_port


def postgres_programs() -> Path:
    """The folder of initdb and psql, or a skip that says what to install."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("no PostgreSQL under /usr/lib/postgresql; install Debian's package postgresql")
    return found[-1].parent


def _user() -> str | None:
    """initdb refuses root."""
    if os.getuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        pytest.skip("initdb refuses root and there is no user postgres; run the tests as another user")


def _answers(uri: str) -> bool:
    import psycopg2

    try:
        psycopg2.connect(uri).close()
    except psycopg2.OperationalError:
        return False
    return True


@contextmanager
def postgres_server(superuser: str, password: str = "", port: int = 0) -> Iterator[tuple[Service, int]]:
    """A fresh, running cluster and its port, gone afterwards; without a password it trusts everyone."""
    pytest.importorskip("psycopg2", reason="psycopg2 is not installed; install wertune[postgres]")
    programs, user, port = postgres_programs(), _user(), port or free_port()
    folder = Path(tempfile.mkdtemp(prefix="wergate-postgres-"))
    secret = folder / "password"
    secret.write_text(password)
    if user:
        shutil.chown(folder, user)
        shutil.chown(secret, user)
    try:
        data = folder / "data"
        access = ["--auth=scram-sha-256", f"--pwfile={secret}"] if password else ["--auth=trust"]
        initdb = [programs / "initdb", "-D", data, "-U", superuser, *access, "--no-sync", "-E", "UTF8"]
        subprocess.run(initdb, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        settings = ["fsync=off", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}"]
        options = [part for setting in settings for part in ("-c", setting)]
        command = [str(programs / "postgres"), "-D", str(data), "-p", str(port), *options]
        uri = f"postgresql://{superuser}:{password}@127.0.0.1:{port}/postgres"
        # SIGINT is its fast shutdown: open connections are cut.
        server = Service(command, lambda: _answers(uri), folder / "log", user=user, stop_signal=signal.SIGINT)
        server.start()
        try:
            yield server, port
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgres_cluster() -> Iterator[str]:
    """The URI of an empty database in a fresh cluster, which is gone afterwards."""
    with postgres_server("mlflow") as (_, port):
        yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres"
