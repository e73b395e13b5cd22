"""Human speech from outside the domain: what a tuned model must not forget, and what it may rehearse."""

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wertune.base.errors import SynthesisError
from wertune.base.text import Normalise
from wertune.data.audio import SAMPLE_RATE_HZ, Samples, load_audio
from wertune.data.clip_files import level, trim, write_clip
from wertune.synthesis.config import Recordings, RetentionSizes, SynthesisConfig
from wertune.synthesis.sentences import read_utf8

_SHORTEST_S, _LONGEST_S = 0.6, 12.0
_MIN_WORDS, _PREFERRED_WORDS = 2, 3
_MARGIN_S = 0.2
_REST = "rest"  # of the recordings, once the splits are full; rows of it say so


@dataclass(frozen=True)
class Prompt:
    """One recording that is used: its samples at 16 kHz, trimmed and levelled."""

    name: str
    text: str
    speaker: str
    only: str | None
    samples: Samples


def build_retention(
    project_dir: Path, out: Path, config: SynthesisConfig, texts: Iterable[str], normalise: Normalise
) -> dict[str, list[dict[str, Any]]]:
    """Writes the clips of the human recordings; manifest rows by split, no sentence in two of them or in `texts`."""
    known = set(map(normalise, texts))
    shared = _prompts(project_dir, config, whole=False)
    keys = [normalise(prompt.text) for prompt in shared]
    splits = assign(keys, [prompt.only for prompt in shared], known, config.retention, config.seed)
    placed = [(prompt, split) for prompt, split in zip(shared, splits, strict=True) if split is not None]
    placed += _whole(_prompts(project_dir, config, whole=True), known, dict(zip(keys, splits, strict=True)), normalise)
    rows: dict[str, list[dict[str, Any]]] = {}
    more: dict[str, dict[str, Any]] = {"replay": {"weight": config.retention.replay_weight}, _REST: {_REST: True}}
    for prompt, split in placed:
        joined = "retention_test" if split == _REST else split
        rows.setdefault(joined, []).append(_write(out, joined, prompt, config.bitrate_kbps) | more.get(split, {}))
    return rows


def _prompts(project_dir: Path, config: SynthesisConfig, whole: bool) -> list[Prompt]:
    sources = [source for source in config.recordings if source.whole == whole]
    return [prompt for source in sources for prompt in read_prompts(project_dir, source)]


def _whole(
    prompts: Iterable[Prompt], known: Container[str], places: dict[str, str | None], normalise: Normalise
) -> Iterator[tuple[Prompt, str]]:
    """Those prompts whose sentence is in no other split; more of retention's test is marked as its `rest`."""
    taken = {key: "retention_test" if split == _REST else split for key, split in places.items() if split is not None}
    for prompt in prompts:
        key = normalise(prompt.text)
        elsewhere = key in known and prompt.only != "replay"
        if prompt.only and not elsewhere and taken.setdefault(key, prompt.only) == prompt.only:
            yield prompt, _REST if prompt.only == "retention_test" else prompt.only


def assign(
    keys: Sequence[str],
    fixed: Sequence[str | None],
    known: Container[str],
    sizes: RetentionSizes,
    seed: int,
) -> list[str | None]:
    """Each prompt's split, or None for what is over; equal keys go together, `known` ones only to replay.

    With `sizes.rest` retention_test nothing goes to replay: what is over is `rest`, short or not, and joins the test.
    """
    groups: dict[str, list[int]] = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    room = {"retention_test": sizes.test, "retention_validation": sizes.validation, "replay": sizes.replay}
    splits: list[str | None] = [None] * len(keys)
    wanted_by = {key: {fixed[i] for i in members} - {None} for key, members in groups.items()}
    names = list(groups)
    drawn = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    for key in sorted(drawn, key=lambda key: not wanted_by[key]):  # who has no choice, first
        members, wanted = groups[key], wanted_by[key]
        short = len(key.split()) < _PREFERRED_WORDS  # too few words to judge a model by, but enough to rehearse
        open_splits = wanted or ({"replay"} if key in known or short else set(room))
        split = next((name for name in room if name in open_splits and room[name] >= len(members)), None)
        if split is not None:
            room[split] -= len(members)
            for i in members:
                splits[i] = split
    if sizes.rest == "retention_test":
        return [_not_replay(split, key, wanted_by[key], known) for split, key in zip(splits, keys, strict=True)]
    return splits


def _not_replay(split: str | None, key: str, wanted: set[str | None], known: Container[str]) -> str | None:
    """The split; `rest` where it is replay or none, unless the text stands elsewhere or its source names a split."""
    if split not in (None, "replay"):
        return split
    return None if key in known or wanted - {"retention_test"} else _REST


def read_prompts(project_dir: Path, source: Recordings) -> list[Prompt]:
    """The source's recordings of two words and more that last 0.6 to 12 s; a SynthesisError names what is missing."""
    folder = project_dir / source.folder
    if not folder.is_dir():
        remedy = f"on Debian: apt-get install {source.package}" + (source.unpack and f", then {source.unpack}")
        raise SynthesisError(f"{folder} does not exist; {remedy}")
    file = project_dir / source.transcripts
    rows = [_row(line, f"{file}:{number}") for number, line in enumerate(read_utf8(file).splitlines(), 1)]
    return [prompt for row in rows if (prompt := _read_prompt(source, folder, *row)) is not None]


def _row(line: str, place: str) -> list[str]:
    """File, text and perhaps speaker, who begins the name of a clip's file."""
    row = line.split("\t")
    if len(row) not in (2, 3) or any(sign in "".join(row[2:]) for sign in "/\\"):
        rule = "must be FILE<TAB>TEXT, or FILE<TAB>TEXT<TAB>SPEAKER with a speaker without slashes"
        raise SynthesisError(f"{place}: {line!r} {rule}; mend the line")
    return row


def _read_prompt(source: Recordings, folder: Path, file: str, text: str, speaker: str = "") -> Prompt | None:
    if len(text.split()) < _MIN_WORDS:
        return None
    samples = trim(load_audio(folder / file), _MARGIN_S)
    if not _SHORTEST_S <= len(samples) / SAMPLE_RATE_HZ <= _LONGEST_S:
        return None
    name = file.rsplit(".", 1)[0].replace("/", "-")
    return Prompt(name, text, speaker or source.speaker, source.only, level(samples))


def _write(out: Path, split: str, prompt: Prompt, bitrate_kbps: float) -> dict[str, Any]:
    filename = f"{prompt.speaker}-{prompt.name}.opus"
    write_clip(out / "audio" / split / filename, prompt.samples, bitrate_kbps)
    return {
        "audio_filepath": f"../audio/{split}/{filename}",
        "text": prompt.text,
        "duration": round(len(prompt.samples) / SAMPLE_RATE_HZ, 3),
        "speaker": prompt.speaker,
        "terms": [],
        "channel": "clean",
        "sentence": f"{prompt.speaker}-{prompt.name}",
        "voice": "human",
    }
