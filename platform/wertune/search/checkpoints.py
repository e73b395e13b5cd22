"""What trials leave behind, kept on the driver's disk: a lost process or node takes no finished epoch with it."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from wertune.base.errors import SearchStorageError
from wertune.base.files import STAMP, is_whole, store_folder, storing

STATE, SHORTAGES = "state", "shortages"
LAST_STAGE = "last_stage"
REMEDY = "free the disk that the search runs from and resume it"


class CheckpointStore:
    """Folders of files by trial and name, each whole or not there; a newer one takes an older one's place."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, trial: int, name: str, files: Mapping[str, bytes]) -> None:
        """Keeps `files`, by their paths, as the trial's newest `name`; SearchStorageError when the disk is full."""
        kept = self._kept(trial, name)
        number = 1 + max((int(folder.name) for folder in kept), default=0)

        def write(folder: Path) -> None:
            for path, content in files.items():
                (folder / quote(path, safe="")).write_bytes(content)

        with storing(f"{name} of trial {trial + 1}", self._root, REMEDY, SearchStorageError):
            store_folder(self._folder(trial, name) / f"{number:06d}", write, {})
        for folder in kept:
            shutil.rmtree(folder, ignore_errors=True)

    def get(self, trial: int, name: str) -> dict[str, bytes] | None:
        """The files of the newest whole `name`, or None where there is none."""
        whole = [folder for folder in self._kept(trial, name) if is_whole(folder)]
        if not whole:
            return None
        return {unquote(file.name): file.read_bytes() for file in whole[-1].iterdir() if file.name != STAMP}

    def add_shortage(self, trial: int, cause: str) -> None:
        """Keeps that a process of the trial was ended for want of memory, and why."""
        self.put(trial, SHORTAGES, {SHORTAGES: json.dumps([*self.shortages(trial), cause]).encode()})

    def shortages(self, trial: int) -> list[str]:
        """Why processes of the trial were ended for want of memory, each in words of its own, the first one first."""
        files = self.get(trial, SHORTAGES)
        return list(json.loads(files[SHORTAGES])) if files else []

    def tell_last_stage(self, is_last: bool) -> None:
        """Keeps whether no other trial is to come."""
        if is_last:
            self._root.mkdir(parents=True, exist_ok=True)
            (self._root / LAST_STAGE).touch()
        else:
            (self._root / LAST_STAGE).unlink(missing_ok=True)

    def may_take_over(self) -> bool:
        """Whether trials may have what others have left: no other trial is to come."""
        return (self._root / LAST_STAGE).exists()

    def forget(self, trial: int, name: str) -> None:
        """Frees the disk."""
        shutil.rmtree(self._folder(trial, name), ignore_errors=True)

    def _folder(self, trial: int, name: str) -> Path:
        return self._root / str(trial) / quote(name, safe="")

    def _kept(self, trial: int, name: str) -> list[Path]:
        return sorted(folder for folder in self._folder(trial, name).glob("[0-9]*") if folder.is_dir())


class Heard:
    """What tasks say while they run, in an actor; here, where its process imports next to nothing.

    It is kept in a folder, so that an actor that Ray starts anew has lost nothing.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._said = max(map(_number, self._kept()), default=0)

    def add(self, said: Any) -> None:
        """A task says so, in what JSON knows."""
        written = self._folder / "new"
        written.write_text(json.dumps(said), encoding="utf-8")
        self._said += 1
        written.rename(self._folder / str(self._said))

    def since(self, seen: int) -> list[Any]:
        """All but the first `seen` that were said; those are forgotten, but for the last one, which has the number."""
        for file in [file for file in self._kept() if _number(file) < seen]:
            file.unlink()
        return [json.loads(file.read_text(encoding="utf-8")) for file in self._kept() if _number(file) > seen]

    def _kept(self) -> list[Path]:
        return sorted(self._folder.glob("[0-9]*"), key=_number)


def _number(file: Path) -> int:
    return int(file.name)


def start_on_this_node(kind: type, at_once: int, *told: Any) -> Any:
    """A Ray actor for workers anywhere, of which so many calls may run at once; it ends with the driver."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(kind).options(
        num_cpus=0,
        max_concurrency=at_once,
        scheduling_strategy=here,
        # Short of memory, Ray ends small actors with the large ones; who calls this one meanwhile waits.
        max_restarts=-1,
        max_task_retries=-1,
    )
    return actor.remote(*told)
