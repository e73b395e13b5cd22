"""Files in, a manifest out: the segments of a recording that are sure enough, and what became of all others."""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wertune.alignment.align import Aligned, Segment, align
from wertune.alignment.ctc import CtcFollower, WithCtc
from wertune.alignment.hearing import Listener
from wertune.alignment.recording import duration_s
from wertune.alignment.transcript import read_sentences
from wertune.base.config import ProjectConfig
from wertune.base.errors import ConfigError
from wertune.base.files import check_writable, write_rows
from wertune.whisper.base_model import resolve_base_model
from wertune.whisper.model import load_whisper

OUT_REMEDY = "free some space there, or give an --out that can be written"


@dataclass(frozen=True)
class Written:
    """The manifest and the segments in it, those that are doubtful, and the sentences that were not heard."""

    manifest: Path
    kept: tuple[Segment, ...]
    doubtful: tuple[Segment, ...]
    absent: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        kept, doubtful = [asdict(each) for each in self.kept], [asdict(each) for each in self.doubtful]
        return {"manifest": str(self.manifest), "kept": kept, "doubtful": doubtful, "absent": list(self.absent)}


def parted(manifest: Path, found: Aligned, min_score: float) -> Written:
    """What was found as what is sure enough for the manifest and what is not."""
    kept = tuple(each for each in found.segments if each.score >= min_score)
    doubtful = tuple(each for each in found.segments if each.score < min_score)
    return Written(manifest, kept, doubtful, found.absent)


Aligner = Callable[[Path, Sequence[str]], Aligned]  # of a recording and its sentences


def load_aligner(config: ProjectConfig, ctc: str, say: Callable[[str], object]) -> Aligner:
    """Aligns by the project's base, or times words by the CTC model in the folder `ctc`; raises BaseModelError."""
    base = resolve_base_model(
        config.base_model.source,
        revision=config.base_model.revision,
        expected_digest=config.base_model.digest,
    )
    follower = CtcFollower(Path(ctc)) if ctc else None
    listener = Listener(load_whisper(base.path, config.language, config.trial.quantization), config.trial.decode)
    if not follower:
        _ = listener.heads  # tells of a base without any before the recording is heard
    hearer = WithCtc(listener, follower) if follower else listener
    return lambda recording, sentences: align(recording, sentences, hearer, follower or listener, say)


def align_files(
    config: ProjectConfig,
    recording: Path,
    transcript: Path,
    out: Path | None,
    min_score: float,
    ctc: str,
    say: Callable[[str], object],
    speaker: str = "",
) -> Written:
    """Aligns a recording, of one `speaker` where named, and writes the manifest.

    Raises ConfigError, ManifestError, AudioError and BaseModelError; nothing is written then.
    """
    sentences = read_sentences(transcript)
    duration_s(recording)  # before the model is loaded, which takes a while
    out = out or recording.with_suffix(".jsonl")
    if os.path.lexists(out):
        raise ConfigError(f"{out} exists, and nothing is written over; give another --out or remove it")
    check_writable(out, "the segments", OUT_REMEDY)
    done = parted(out, load_aligner(config, ctc, say)(recording, sentences), min_score)
    write_rows(out, rows_of(done, recording, speaker))
    return done


def rows_of(done: Written, recording: Path, speaker: str) -> list[dict[str, Any]]:
    """The manifest's rows of a recording."""
    name = os.path.relpath(recording.resolve(), done.manifest.parent.resolve())
    return [_row(each, name) | ({"speaker": speaker} if speaker else {}) for each in done.kept]


def _row(segment: Segment, name: str) -> dict[str, Any]:
    lasts_s = round(segment.end_s - segment.start_s, 3)
    about = {"audio_filepath": name, "offset": segment.start_s, "duration": lasts_s, "text": segment.text}
    return about | {"score": segment.score}


def clock(seconds: float) -> str:
    """1:02:03.45, hours only where there are any."""
    hours, rest = divmod(round(100 * seconds), 360_000)
    minutes, hundredths = divmod(rest, 6000)
    return (f"{hours}:{minutes:02d}" if hours else f"{minutes}") + f":{hundredths / 100:05.2f}"
