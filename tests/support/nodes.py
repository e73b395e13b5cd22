"""A Ray cluster of two nodes on one machine that share neither a network address nor a file but Python's own."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.places import ROOT
from tests.support.processes import free_port, wait_for

SECOND = "second"  # the resource that places a task on the second node
PLACE_OF_PACKAGE = "import wertune; print(wertune.__path__[0])"
# $1 is Python's prefix, the words up to -- are folders to hide, the rest is the command. The prefix may lie in a hidden
# folder: it is held open and bound to its place again.
HIDE_AND_RUN = """
set -e
prefix=$1; shift
exec 9<"$prefix"
while [ "$1" != -- ]; do mount -t tmpfs tmpfs "$1"; shift; done
shift
if [ ! -e "$prefix/bin" ]; then mkdir -p "$prefix"; mount --no-canonicalize --bind /proc/self/fd/9 "$prefix"; fi
exec 9<&-
mkdir -p "$HOME"; cd "$HOME"
exec "$@"
"""


@dataclass(frozen=True)
class TwoNodes:
    """The cluster's address, what a driver's environment needs to join it, and its nodes' addresses and processes."""

    address: str
    environment: Mapping[str, str]
    head_ip: str
    second_ip: str
    head: subprocess.Popen[Any]
    second: subprocess.Popen[Any]

    @property
    def token(self) -> str:
        return self.environment["RAY_AUTH_TOKEN"]

    def kill_second(self) -> None:
        """Ends every process of the second node at once, as a power cut would."""
        self.second.kill()
        self.second.wait()


@contextmanager
def two_nodes(hidden: Sequence[Path] = (), cpus: int = 1, head_gpus: int = 0) -> Iterator[TwoNodes]:
    """A head on this machine and a second node in its own network, processes and mounts; skips where it cannot be.

    The second node has no GPU, and sees neither the repository, temporary files, shared memory, this user's caches nor
    `hidden`. The head's `head_gpus` are for Ray to count; there need be none.
    """
    _skip_unless_possible()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-")))
        network, head_ip, second_ip = stack.enter_context(_network())
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "RAY_USAGE_STATS_ENABLED": "0"}
        address = f"{head_ip}:{free_port()}"
        command = _head_command(address, scratch, cpus, head_gpus)
        head = stack.enter_context(_started(command, scratch / "head.log", token, signal.SIGTERM))
        wait_for(lambda: "Ray runtime started" in (scratch / "head.log").read_text(), head)
        # What is under the hidden temporary folder is the second node's alone, and so are its home and its caches.
        own = {"HOME": f"{scratch}/home", "WERTUNE_CACHE": f"{scratch}/cache", "XDG_CACHE_HOME": f"{scratch}/xdg"}
        command = _isolated(network, [*_hidden_folders(), *hidden], _second_command(address, second_ip, cpus))
        log = scratch / "second.log"
        second = stack.enter_context(_started(command, log, token | own | {"PYTHONPATH": ""}, signal.SIGKILL))
        wait_for(lambda: "Ray runtime started" in log.read_text(), second)
        yield TwoNodes(address, token, head_ip, second_ip, head, second)


def _skip_unless_possible() -> None:
    missing = [name for name in ("ip", "unshare", "mount") if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"a second node needs root and iproute2 ({', '.join(missing) or 'this is not root'})")
    tried = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"a second node needs namespaces of its own: {tried.stderr.strip()}")


@contextmanager
def _network() -> Iterator[tuple[str, str, str]]:
    """A network namespace's name, and the addresses of this side and of that."""
    name = f"wt{secrets.token_hex(3)}"
    # 198.18.0.0/15 is for tests of networks (RFC 2544); four addresses of it, drawn so that tests may run side by side.
    prefix, last = f"198.{18 + secrets.randbelow(2)}.{secrets.randbelow(256)}", 4 * secrets.randbelow(64)
    here, there = f"{prefix}.{last + 1}", f"{prefix}.{last + 2}"
    try:
        _ip("netns", "add", name)
        _ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("address", "add", f"{here}/30", "dev", name)
        _ip("link", "set", name, "up")
        _ip("-n", name, "address", "add", f"{there}/30", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", name, "link", "set", device, "up")
        yield name, here, there
    finally:
        # Deleting the link first frees its address at once; with the namespace alone it goes some time later.
        subprocess.run(["ip", "link", "delete", name], capture_output=True)
        subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a second node needs a network of its own: ip {' '.join(arguments)}: {done.stderr.strip()}")


@contextmanager
def _started(
    command: Sequence[str], log: Path, environment: Mapping[str, str], end: signal.Signals
) -> Iterator[subprocess.Popen[Any]]:
    """The command, its output in `log`; it is ended by the signal, and what is left of its group is killed."""
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=os.environ | environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    except BaseException:
        print(log.read_text())
        raise
    finally:
        process.send_signal(end)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _kill_group(process.pid)


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


def _hidden_folders() -> list[Path]:
    """The repository, temporary files, Ray's shared memory, caches, and the package where Python has it installed."""
    installed = subprocess.run(
        [sys.executable, "-c", PLACE_OF_PACKAGE], cwd="/", env={}, capture_output=True, text=True
    ).stdout.strip()
    cache = Path(os.environ.get("WERTUNE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "wertune"))
    folders = [ROOT, Path(tempfile.gettempdir()), Path("/dev/shm"), cache.expanduser()]
    folders += [Path(installed)] if installed else []
    return [folder for folder in folders if folder.is_dir()]


def _isolated(network: str, hidden: Sequence[Path], command: Sequence[str]) -> list[str]:
    """The command in namespaces of its own; all of its processes end with the one that this starts."""
    own = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--mount-proc", "--kill-child"]
    # A folder inside a hidden one is hidden with it.
    outer = sorted({folder for folder in hidden if not any(other in folder.parents for other in hidden)})
    script = ["sh", "-c", HIDE_AND_RUN, "sh", sys.prefix, *map(str, outer), "--"]
    return ["ip", "netns", "exec", network, *own, *script, *command]


def _ray(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments, "--block"]


def _head_command(address: str, scratch: Path, cpus: int, gpus: int) -> list[str]:
    ip, _, port = address.partition(":")
    # In a folder of its own: Ray joins whatever cluster it finds noted in the usual one.
    place = (f"--node-ip-address={ip}", f"--port={port}", f"--temp-dir={scratch}/t")
    return _ray("--head", *place, f"--num-cpus={cpus}", f"--num-gpus={gpus}", "--include-dashboard=false")


def _second_command(address: str, ip: str, cpus: int) -> list[str]:
    has = (f"--num-cpus={cpus}", "--num-gpus=0", f'--resources={{"{SECOND}": {cpus}}}')
    return _ray(f"--address={address}", f"--node-ip-address={ip}", *has)
