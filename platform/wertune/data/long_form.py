"""Recordings of many sentences whose times are known: joined from single clips, or real ones with their segments."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import numpy as np

from wertune.base.files import content_digest
from wertune.data.audio import SAMPLE_RATE_HZ, Samples, length_s, load_audio
from wertune.data.manifest import Recording
from wertune.data.rows import line_place

CLIPS_EACH, LONG_S, MOST_RECORDINGS = 10, 60.0, 14
PAUSE_S = (0.25, 0.8)
HISS = 1e-4  # of a pause, that it is not nothing
UNLISTED_S = 5.0  # of so long a pause between segments nobody knows that nothing is said in it


@dataclass(frozen=True)
class Said:
    """A clip of its own, and when its speech is heard in the long recording."""

    clip: Recording
    start_s: float
    end_s: float


@dataclass(frozen=True)
class LongRecording:
    """What is said in it, in order, and its mono float32 samples (n,) at 16 kHz; `digest` is of its sound."""

    said: tuple[Said, ...]
    duration_s: float
    digest: str
    samples: Callable[[], Samples]

    @property
    def language(self) -> str:
        """Empty where all of the project is in its one language."""
        return self.said[0].clip.language


def joined_recordings(clips: Sequence[Recording], most: int = MOST_RECORDINGS, seed: int = 0) -> list[LongRecording]:
    """Ten clips of one language each, or fewer where they last a minute; a clip stands in one of them at most.

    Which clips, their order and their pauses hang on the seed and the clips' digests alone.
    """
    order = sorted(clips, key=lambda clip: content_digest([seed, clip.digest]))
    by_language = [[c for c in order if c.language == each] for each in sorted({clip.language for clip in clips})]
    groups = [list(_groups(each)) for each in by_language]
    turns = [each[turn] for turn in range(max(map(len, groups), default=0)) for each in groups if turn < len(each)]
    return [_joined(chosen, seed) for chosen in turns[:most]]


def _groups(clips: Sequence[Recording]) -> Iterator[tuple[Recording, ...]]:
    """As many as make a recording each; of a single one that is left over none is made."""
    group, lasts_s = list[Recording](), 0.0
    for clip in clips:
        group.append(clip)
        lasts_s += clip.duration_s
        if len(group) == CLIPS_EACH or (lasts_s >= LONG_S and len(group) > 1):
            yield tuple(group)
            group, lasts_s = [], 0.0
    if len(group) > 1:
        yield tuple(group)


def _joined(clips: tuple[Recording, ...], seed: int) -> LongRecording:
    from wertune.data.nonspeech import speech_span_s  # here: `validate` looks at whole recordings, and needs no torch

    digest = content_digest([seed, [clip.digest for clip in clips], PAUSE_S, HISS])
    pauses_s = np.random.default_rng(int(digest[:16], 16)).uniform(*PAUSE_S, len(clips))
    sizes = [round(pause_s * SAMPLE_RATE_HZ) for pause_s in pauses_s]
    said, at = list[Said](), 0
    for clip, pause in zip(clips, sizes, strict=True):
        samples = clip.samples()
        first_s, last_s = (at / SAMPLE_RATE_HZ + time_s for time_s in speech_span_s(samples))
        said.append(Said(clip, first_s, last_s))
        at += samples.size + pause
    return LongRecording(tuple(said), at / SAMPLE_RATE_HZ, digest, partial(_samples, clips, sizes, digest))


def _samples(clips: Sequence[Recording], pauses: Sequence[int], digest: str) -> Samples:
    """The clips one after the other, behind each a pause of so many samples of a faint hiss."""
    generator = np.random.default_rng(int(digest[16:32], 16))
    pieces = [
        (clip.samples(), HISS * generator.standard_normal(pause)) for clip, pause in zip(clips, pauses, strict=True)
    ]
    return np.concatenate([part for pair in pieces for part in pair]).astype(np.float32)


def whole_recordings(segments: Sequence[Recording]) -> list[LongRecording]:
    """The recordings that rows with segments are of, each read from its beginning to its end."""
    by_line = groupby(segments, key=lambda segment: line_place(segment.place))
    return [_whole(sorted(each, key=lambda segment: segment.row.offset)) for _, each in by_line]


def _whole(segments: Sequence[Recording]) -> LongRecording:
    said = (Said(each, each.row.offset, each.row.offset + each.duration_s) for each in segments)
    path = segments[0].path
    return LongRecording(tuple(said), length_s(path), segments[0].file_digest, partial(load_audio, path))


def unlisted(recordings: Sequence[LongRecording]) -> str:
    """A line on stretches that no segment covers, if any is long: what is said there counts as words too many."""
    found = [
        (start_s, end_s, recording)
        for recording in recordings
        for start_s, end_s in _gaps(recording)
        if end_s - start_s > UNLISTED_S
    ]
    if not found:
        return ""
    start_s, end_s, recording = max(found, key=lambda gap: gap[1] - gap[0])
    seconds = sum(end_s - start_s for start_s, end_s, _ in found)
    such = f"such as {start_s:.1f} to {end_s:.1f} s of {line_place(recording.said[0].clip.place)}"
    count = f"{len(found)} stretch{'es' if len(found) > 1 else ''} of more than {UNLISTED_S:g} s"
    what = f"long recordings: {count}, {seconds:.0f} s in all, {such}"
    return f"{what}, in no segment: what is said there counts as words too many; list it, or cut it out"


def _gaps(recording: LongRecording) -> Iterator[tuple[float, float]]:
    heard_s = 0.0
    for each in sorted(recording.said, key=lambda said: said.start_s):
        yield heard_s, each.start_s
        heard_s = max(heard_s, each.end_s)
    yield heard_s, recording.duration_s


def set_digest(recordings: Sequence[LongRecording]) -> str:
    """Of the sound, the texts, the languages that rows name, and the times of all that is said."""
    said = [
        [each.clip.digest, each.clip.text, each.clip.row.language, round(each.start_s, 3), round(each.end_s, 3)]
        for recording in recordings
        for each in recording.said
    ]
    return content_digest([[recording.digest for recording in recordings], said])
