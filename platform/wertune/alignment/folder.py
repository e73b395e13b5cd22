"""A folder of long recordings, each with its transcript beside it, into one manifest that grows with each of them."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wertune.alignment.recording import duration_s
from wertune.alignment.segments import OUT_REMEDY, Aligner, Written, load_aligner, parted, rows_of
from wertune.alignment.transcript import read_sentences
from wertune.base.config import ProjectConfig
from wertune.base.errors import AudioError, ConfigError, ManifestError
from wertune.base.files import cache_root, check_writable, content_digest, locked, write_rows
from wertune.data.importers.item import Columns, Fault, Item
from wertune.data.importers.plain import read_plain
from wertune.data.manifest import read_rows


@dataclass(frozen=True)
class Pair:
    """A recording, the sentences of its transcript, and who speaks; empty where nobody is named."""

    recording: Path
    sentences: tuple[str, ...]
    speaker: str


def pairs_in(folder: Path) -> list[Pair]:
    """As `import` reads plain folders: a folder below is its speaker's. ManifestError with all faults at once."""
    found, faults = list[Pair](), list[str]()
    for each in read_plain(folder, Columns()):
        if isinstance(each, Fault):
            faults.append(str(each))
        elif isinstance(each, Item) and isinstance(each.audio, Path):
            try:
                duration_s(each.audio)
                sentences = read_sentences(each.audio.with_suffix(".txt"))
                found.append(Pair(each.audio, tuple(sentences), each.speaker))
            except (AudioError, ConfigError, ManifestError) as error:
                faults.append(str(error))
    if faults:
        told = "\n".join(faults)
        raise ManifestError(f"{told}\n{len(faults)} of {folder}'s files; mend or remove them, nothing was heard yet")
    return found


def align_folder(
    config: ProjectConfig,
    folder: Path,
    out: Path | None,
    min_score: float,
    ctc: str,
    say: Callable[[str], object],
    told: Callable[[Path, Written], object],
) -> Path:
    """Aligns all recordings that `out` has no rows of, writes it after each, and says what became of it.

    ManifestError, once all others are written, with those that are not what their transcripts say; and before anything
    is heard what `align_files` raises.
    """
    pairs = pairs_in(folder)
    out = out or folder.resolve().parent / f"{folder.resolve().name}.jsonl"
    known = _recordings(out, _rows(out))
    waiting = [pair for pair in pairs if pair.recording.resolve() not in known]
    if len(waiting) < len(pairs):
        say(
            f"{out} has {len(pairs) - len(waiting)} of {len(pairs)} recordings already; remove their lines to redo them"
        )
    if waiting:
        check_writable(out, "the segments", OUT_REMEDY)
        _align_each(waiting, load_aligner(config, ctc, say), out, min_score, say, told)
    return out


def _rows(out: Path) -> list[dict[str, Any]]:
    return list({at.line: values for at, values, _ in read_rows(out)}.values()) if os.path.lexists(out) else []


def _recordings(out: Path, rows: Iterable[Mapping[str, Any]]) -> set[Path]:
    return {(out.parent / str(row["audio_filepath"])).resolve() for row in rows}


def _align_each(
    pairs: list[Pair],
    aligner: Aligner,
    out: Path,
    min_score: float,
    say: Callable[[str], object],
    told: Callable[[Path, Written], object],
) -> None:
    faults = list[str]()
    for pair in pairs:
        try:
            done = parted(out, aligner(pair.recording, pair.sentences), min_score)
        except (AudioError, ManifestError) as error:
            faults.append(str(error))
            continue
        if _added(out, pair.recording, rows_of(done, pair.recording, pair.speaker)):
            told(pair.recording, done)
        else:
            say(f"{pair.recording}: {out} has rows of it by now, which stay as they are")
    if faults:
        lines = "\n".join(faults)
        kept = f"what was found of the others is in {out}" if os.path.lexists(out) else "nothing was written"
        raise ManifestError(f"{lines}\n{len(faults)} of {len(pairs)} recordings; {kept}; mend these and run it again")


def _added(out: Path, recording: Path, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether its rows stand in `out` now, behind what is there: others may have written to it since it was read.

    Not where rows of it have come meanwhile. ManifestError where somebody is in the middle of a line.
    """
    lock = cache_root() / f"align-{content_digest([str(out.resolve())])[:16]}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with locked(lock):
        there = _rows(out)
        if recording.resolve() in _recordings(out, there):
            return False
        write_rows(out, [*there, *rows])
        return True
