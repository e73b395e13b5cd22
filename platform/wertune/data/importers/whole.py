"""Recordings kept whole: one file and one row each, with all that is said in it as segments."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from wertune.base.errors import AudioError
from wertune.data.audio import SAMPLE_RATE_HZ, Samples, load_audio, refuse_cut_off, refuse_unheard, spelt
from wertune.data.importers.clip import (
    LONGEST_READ_S,
    Encoded,
    Place,
    encode_clip,
    is_part,
    length_fault,
    refuse_absent,
    words,
)
from wertune.data.importers.item import Fault, Item, Note


def encode_whole(
    found: Iterable[Item | Fault | Note], to: Place, digest_of: Callable[[Path], str]
) -> Iterator[Encoded | Fault | Note]:
    """The row of each recording of which utterances are parts, one at a time in memory; others are clips."""
    said: dict[Path, list[tuple[int, Item]]] = {}
    for number, each in enumerate(found, start=1):
        if not isinstance(each, Item):
            yield each
        elif isinstance(each.audio, Path) and is_part(each):
            said.setdefault(each.audio, []).append((number, each))
        else:
            yield encode_clip(each, f"{number:06d}", to, digest_of)
    for path, numbered in said.items():
        yield from _encoded(path, [item for _, item in numbered], f"{numbered[0][0]:06d}", to, digest_of)


def _encoded(
    path: Path, items: list[Item], stem: str, to: Place, digest_of: Callable[[Path], str]
) -> Iterator[Encoded | Fault]:
    """What is wrong with a recording or with some of its utterances, and the row of the others."""
    first = items[0]
    try:
        refuse_absent(first)
        samples = load_audio(path)
        refuse_cut_off(path, "the recording")
    except (AudioError, OSError) as error:
        yield Fault(first.place, str(error))
        return
    segments = []
    for item in sorted(items, key=lambda item: item.offset_s):
        segment = _segment(item, samples)
        if isinstance(segment, Fault):
            yield segment
        else:
            segments.append(segment)
    if segments:
        values = {
            "audio_filepath": to.write(stem, samples),
            "duration": round(samples.size / SAMPLE_RATE_HZ, 3),
            "source": spelt(first.source),
            "recording": digest_of(path),
            "segments": segments,
        }
        yield Encoded(spelt(first.place), spelt(first.origin), values)


def _segment(item: Item, samples: Samples) -> dict[str, str | float] | Fault:
    """An utterance as a segment of its recording (n,) at 16 kHz."""
    said = words(item)
    if isinstance(said, Fault):
        return said
    start = round(item.offset_s * SAMPLE_RATE_HZ)
    heard = samples[start:][: round(min(item.duration_s or LONGEST_READ_S, LONGEST_READ_S) * SAMPLE_RATE_HZ)]
    heard_s = heard.size / SAMPLE_RATE_HZ
    if not heard.size:
        lasts_s = samples.size / SAMPLE_RATE_HZ
        rule = f"the recording ends at {lasts_s:.2f} s"
        return Fault(item.place, f"begins at {item.offset_s:g} s, but {rule}; mend the times, or fetch it anew")
    if fault := length_fault(item, heard_s):
        return fault
    try:
        refuse_unheard(heard, "the segment")
    except AudioError as error:
        return Fault(item.place, str(error))
    times = {"start_s": round(item.offset_s, 3), "end_s": round(item.offset_s + heard_s, 3)}
    return {"text": said["text"], **times, **{key: said[key] for key in ("speaker", "language") if said.get(key)}}
