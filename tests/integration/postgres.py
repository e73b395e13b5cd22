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
from tests.integration.processes import free_port, wait_for


def _programs() -> Path:
    """The folder of initdb, or a skip that says what to install."""
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
def postgres_cluster() -> Iterator[str]:
    """The URI of an empty database in a fresh cluster, which is gone afterwards."""
    pytest.importorskip("psycopg2", reason="psycopg2 is not installed; install wertune[postgres]")
    programs, user, port = _programs(), _user(), free_port()
    folder = Path(tempfile.mkdtemp(prefix="wergate-postgres-"))
    if user:
        shutil.chown(folder, user)
    try:
        data = folder / "data"
        initdb = [programs / "initdb", "-D", data, "-U", "mlflow", "--auth=trust", "--no-sync", "-E", "UTF8"]
        subprocess.run(initdb, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        settings = ["fsync=off", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}"]
        options = [part for setting in settings for part in ("-c", setting)]
        command = [str(programs / "postgres"), "-D", str(data), "-p", str(port), *options]
        address = f"mlflow@127.0.0.1:{port}/postgres"
        with subprocess.Popen(command, user=user, cwd=folder, stderr=subprocess.DEVNULL) as process:
            try:
                wait_for(lambda: _answers(f"postgresql://{address}"), process)
                yield f"postgresql+psycopg2://{address}"
            finally:
                process.send_signal(signal.SIGINT)  # its fast shutdown: open connections are cut
    finally:
        shutil.rmtree(folder, ignore_errors=True)
