"""An utterance as a clip of its own, at 16 kHz, and its row."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import soundfile

from wertune.base.errors import AudioError
from wertune.data.audio import (
    MISSING_S,
    SAMPLE_RATE_HZ,
    Samples,
    is_recording,
    load_audio,
    refuse_cut_off,
    refuse_unheard,
    spelt,
)
from wertune.data.clip_files import write_clip
from wertune.data.importers.item import NO_COLUMN, Fault, Item
from wertune.data.manifest import damage
from wertune.data.rows import one_language, one_name

Encoding = Literal["flac", "opus"]

MIN_DURATION_S, MAX_DURATION_S = 0.2, 30.0
LONGEST_READ_S = MAX_DURATION_S + 1  # a small file may hold hours
OPUS_KBPS = 32.0


class Place(NamedTuple):
    """Where recordings are written, what names them in rows, and how they are encoded."""

    folder: Path
    name: str
    encoding: Encoding

    def write(self, stem: str, samples: Samples) -> str:
        """Encodes mono samples (n,) at 16 kHz; gives the path of rows."""
        file = self.folder / f"{stem}.{self.encoding}"
        samples = samples / max(1.0, float(np.abs(samples).max()))  # a decoded mp3 goes a little over full scale
        if self.encoding == "opus":
            write_clip(file, samples, OPUS_KBPS)
        else:
            soundfile.write(file, samples, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
        return f"../audio/{self.name}/{file.name}"


class Encoded(NamedTuple):
    """A row whose recording is written, and where the source has it."""

    place: str
    origin: str
    values: dict[str, Any]


def encode_clip(item: Item, stem: str, to: Place, digest_of: Callable[[Path], str]) -> Encoded | Fault:
    """The row of an utterance, its recording written."""
    said = words(item)
    if isinstance(said, Fault):
        return said
    try:
        refuse_absent(item)
        samples = load_audio(item.audio, item.offset_s, min(item.duration_s or LONGEST_READ_S, LONGEST_READ_S))
        refuse_cut_off(item.audio, "the recording")
        refuse_unheard(samples, "the recording")
    except (AudioError, OSError) as error:
        return Fault(item.place, str(error))
    duration_s = samples.size / SAMPLE_RATE_HZ
    if fault := length_fault(item, duration_s):
        return fault
    values = {
        "audio_filepath": to.write(stem, samples),
        "text": said["text"],
        "duration": round(duration_s, 3),
        "speaker": said["speaker"],
        "source": spelt(item.source),
    }
    values |= {"language": said["language"]} if "language" in said else {}
    if isinstance(item.audio, Path) and is_part(item):
        # `split` keeps it beside the others, wherever its recording is listed, under whatever name.
        values["recording"] = digest_of(item.audio)
    return Encoded(spelt(item.place), spelt(item.origin), values)


def is_part(item: Item) -> bool:
    """Whether there is more in its recording, or may be."""
    return item.offset_s > 0 or item.duration_s is not None


def words(item: Item) -> dict[str, str] | Fault:
    """Text, speaker and, where one is named, language, as rows have them."""
    if not item.text.strip():
        return Fault(item.place, "the text is empty; transcribe the clip or remove the row")
    if wrong := damage(item.text):
        return Fault(item.place, wrong)
    try:
        language = one_language(item.languages)
    except ValueError as error:
        return Fault(item.place, f"{error}, or leave languages unread with --language-column {NO_COLUMN}")
    said = {"text": item.text.strip(), "speaker": one_name(item.speaker)}
    return said | ({"language": language} if language else {})


def refuse_absent(item: Item) -> None:
    """AudioError where there is no such file."""
    if isinstance(item.audio, Path) and not is_recording(item.audio):
        raise AudioError(f"there is no recording {item.audio}; add it or remove the row")


def length_fault(item: Item, heard_s: float) -> Fault | None:
    """What is wrong with an utterance of which so much was heard, a little more than may be at most."""
    if not MIN_DURATION_S <= heard_s <= MAX_DURATION_S:
        rule = f"must last {MIN_DURATION_S:g} to {MAX_DURATION_S:g} s"
        lasts = f"{'at least ' if heard_s >= LONGEST_READ_S - 0.01 else ''}{heard_s:.2f} s"
        return Fault(item.place, f"the recording lasts {lasts}, but {rule}; split it or remove the row")
    if (asked_s := item.duration_s or 0.0) - heard_s > MISSING_S:
        # What is said in it was said of the whole part: more than is heard here.
        asked = f"its part lasts from {item.offset_s:g} to {item.offset_s + asked_s:g} s"
        ends = f"the recording ends at {item.offset_s + heard_s:.2f} s"
        return Fault(item.part_place or item.place, f"{asked}, but {ends}; mend the times, or fetch the recording anew")
    return None
