"""What this machine has: an engine, and free cores, memory, disk. A container's limits count where they are less."""

import os
import platform
import shutil
from importlib.util import find_spec
from pathlib import Path

from wertune.base.config import Engine, TrialPlaces
from wertune.base.errors import ConfigError

MEMINFO = Path("/proc/meminfo")
CPU_INFO = Path("/proc/cpuinfo")
CGROUP = Path("/sys/fs/cgroup")
SOCKET_PATH_BYTES = 107  # Linux's limit
RAY_SOCKET = "/ray/session_2026-11-29_21-49-20_123456_4194304/sockets/plasma_store"  # the longest below Ray's folder
PACKAGES: dict[Engine, tuple[str, ...]] = {"torch": (), "ctranslate2": ("ctranslate2",)}


def cores() -> int:
    """Those that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def room_for_trials(places: TrialPlaces, gpus: int) -> float:
    """How many trials find their places on this machine at once, which has so many GPUs; ConfigError for none."""
    workers, asked = places.workers, places.gpus_per_trial
    wanted = (float(workers) if gpus else 0.0) if asked == "auto" else asked
    if wanted > gpus:
        told, remedy = f"each of a trial's {workers} workers is to have a GPU", "lower workers_per_trial"
        if asked != "auto":
            told, remedy = f"gpus_per_trial is {asked:g}", "lower it or set it to auto"
        raise ConfigError(f"{told}, but this machine has {gpus} GPUs; {remedy}")
    found, needed = cores(), workers * places.cpus_per_trial
    if needed > found:
        told = f"a trial has {workers} workers and cpus_per_trial is {places.cpus_per_trial}"
        raise ConfigError(f"{told}, but this machine has {found} cores; lower workers_per_trial or cpus_per_trial")
    return min(found / needed, gpus / wanted) if wanted else found / needed


def free_memory_mb() -> float | None:
    """What new processes can have before the system swaps or kills; None where it does not say."""
    known = [size for size in (_available_mb(), _left_by_container_mb()) if size is not None]
    return min(known, default=None)


def _available_mb() -> float | None:
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) / 1024
    except (OSError, KeyError, ValueError):
        return None


def _left_by_container_mb() -> float | None:
    """Of cgroup v2's limit; None without one."""
    try:
        limit, used = ((CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return None if limit == "max" else (int(limit) - int(used)) / 2**20
    except (OSError, ValueError):
        return None


def free_disk_mb(folder: Path) -> float:
    """Where `folder` lies or will lie."""
    return shutil.disk_usage(existing(folder)).free / 2**20


def processor_name() -> str:
    """As the system calls it: `AMD EPYC 9B14`."""
    lines = CPU_INFO.read_text(encoding="utf-8").splitlines() if CPU_INFO.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def existing(folder: Path) -> Path:
    """The folder, or its nearest parent that there is."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def ray_folder() -> Path:
    """Where a local Ray puts its sockets, as it finds the folder itself."""
    return Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp")


def require_short_temp() -> None:
    """ConfigError where Ray would end in a page of traceback after 40 s: a socket's path has a limit."""
    folder = ray_folder()
    room = SOCKET_PATH_BYTES - len(RAY_SOCKET)
    if (length := len(os.fsencode(folder))) > room:
        named = "RAY_TMPDIR" if os.environ.get("RAY_TMPDIR") else "TMPDIR"
        problem = f"{named} is {folder}, of {length} characters, but must have at most {room}"
        raise ConfigError(f"{problem}: Ray's sockets lie below it; set RAY_TMPDIR to a shorter folder, such as /tmp")


def require_engine(engine: Engine) -> None:
    """Raises ConfigError where the engine's package is not installed; nothing is imported."""
    for package in PACKAGES[engine]:
        if find_spec(package) is None:
            remedy = f"run `pip install 'wertune[{engine}]'`, or set serving.engine: torch"
            raise ConfigError(f"serving.engine is {engine}, but the package {package} is not installed; {remedy}")
