"""A battery as it lies in a folder: `manifest.jsonl` and the clips that it names."""

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from wertune.base.config import Frozen, ProjectConfig
from wertune.base.contract import BATTERY_PREFIX
from wertune.base.errors import AudioError, ConfigError
from wertune.battery.form import PARTS, Part
from wertune.data.audio import MISSING_S, Samples, length_s, load_audio
from wertune.data.rows import parse_line, problem
from wertune.scores.metrics import Clip

SHIPPED = "shipped"
MANIFEST = "manifest.jsonl"
_PACKAGE = "wertune_battery"  # beside this package, not in it: a version's code and a cluster's workers do without


class BatteryRow(Frozen):
    """One line of the manifest."""

    audio_filepath: str = Field(min_length=1, description="relative to the manifest")
    text: str = Field("", description="as Whisper writes it; empty where nobody speaks")
    duration: float = Field(gt=0, description="seconds")
    part: Part = Field(description="what is tried")
    speaker: str = Field("", description="who is heard")
    source: str = Field(description="the voice or package that it is of: a key of sources.json, with its licence")
    entities: tuple[str, ...] = Field((), description="what must stand in the transcript sign by sign, in order")


@dataclass(frozen=True)
class Battery:
    """The rows of a folder's manifest, in its order."""

    folder: Path
    rows: tuple[BatteryRow, ...]

    @property
    def by_part(self) -> Mapping[Part, list[BatteryRow]]:
        """The rows of each part that there is, in the parts' own order."""
        parts: dict[Part, list[BatteryRow]] = {part: [] for part in PARTS}
        for row in self.rows:
            parts[row.part].append(row)
        return {part: rows for part, rows in parts.items() if rows}

    def samples(self, row: BatteryRow) -> Samples:
        """The clip at 16 kHz."""
        return load_audio(self.folder / row.audio_filepath)

    def clip(self, row: BatteryRow) -> Clip:
        """What scoring needs to know of it."""
        name = Path(row.audio_filepath).stem
        return Clip(f"{set_name(row.part)}:{name}", row.text, row.speaker, duration_s=row.duration)

    def digest(self, part: Part) -> str:
        """SHA-256 of the part's rows and of the bytes of its clips."""
        whole = hashlib.sha256()
        for row in self.by_part[part]:
            whole.update(row.model_dump_json().encode())
            whole.update((self.folder / row.audio_filepath).read_bytes())
        return whole.hexdigest()


def set_name(part: Part) -> str:
    """As a report calls the part."""
    return f"{BATTERY_PREFIX}{part}"


def shipped(language: str) -> Path | None:
    """The platform's own battery of a language, where it has one."""
    found = importlib.util.find_spec(_PACKAGE)
    folders = found.submodule_search_locations if found else None
    own = Path(next(iter(folders))) / language if folders else None
    return own if own and (own / MANIFEST).is_file() else None


def project_battery(project_dir: Path, project: ProjectConfig) -> Battery | None:
    """The battery that `data.battery` names, if any; shipped: the platform's own for the language, if it has one.

    A ConfigError where it cannot be read.
    """
    named = project.data.battery
    if named is None:
        return None
    folder = shipped(project.language) if named == SHIPPED else project_dir / named
    return load_battery(folder) if folder else None


def load_battery(folder: Path) -> Battery:
    """The battery of a folder; a ConfigError names file, line and rule of each row and clip at fault."""
    path = folder / MANIFEST
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:  # no UTF-8, or a NUL in its name
        remedy = "make it with `wertune battery --form`, or mend data.battery"
        raise ConfigError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error}); {remedy}") from None
    faults = list[str]()
    rows = dict[str, BatteryRow]()
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = BatteryRow.model_validate(parse_line(line))
                _check_clip(folder, row, rows)
                rows[row.audio_filepath] = row
            except (ValueError, AudioError) as error:
                faults.append(f"{path}:{number}: {problem(error)}")
    if faults or not rows:
        told = "\n".join(faults) or f"{path} holds no row, but a battery has a clip at least"
        raise ConfigError(f"{told}\nmake the battery again, or mend data.battery")
    return Battery(folder, tuple(rows.values()))


def _check_clip(folder: Path, row: BatteryRow, known: Mapping[str, BatteryRow]) -> None:
    """ValueError or AudioError unless the clip is there in full, and in no other row: by its header, quickly."""
    if row.audio_filepath in known:
        raise ValueError(f"audio_filepath is {row.audio_filepath}, which stands in another row already")
    clip = folder / row.audio_filepath
    if not clip.is_file():
        raise ValueError(f"audio_filepath is {row.audio_filepath}, but there is no such file in {folder}")
    if abs((lasts_s := length_s(clip)) - row.duration) > MISSING_S:
        raise ValueError(f"duration is {row.duration:g} s, but {clip} has {lasts_s:.2f} s")
