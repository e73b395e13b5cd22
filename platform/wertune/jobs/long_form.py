"""The long part of an evaluation: recordings joined of test clips and the project's own, as served, beside the base."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from wertune.base import contract
from wertune.battery.counts import set_report
from wertune.data.long_form import LongRecording, joined_recordings, set_digest, whole_recordings
from wertune.data.manifest import LONG_SPLIT
from wertune.data.segments import listed_segments
from wertune.scores.comparison import Comparison
from wertune.scores.eval_report import SetReport
from wertune.scores.metrics import Scores
from wertune.serving.listener import Voice
from wertune.serving.long_form import alone, score_long, together, write_long
from wertune.training.baseline import FULL_CONTEXT, OF_A_BOOST, baseline_decode, kept_or_written, texts_name
from wertune.training.prepare import Prepared
from wertune.whisper.features import Across
from wertune.whisper.restraints import MOST_S
from wertune.whisper.timed.windows import transcribe_windows
from wertune.whisper.transcription import Segment


@dataclass(frozen=True)
class LongSet:
    """Recordings, whose clips are those of a split of the project."""

    name: str
    split: str
    recordings: Sequence[LongRecording]

    @cached_property
    def digest(self) -> str:
        return set_digest(self.recordings)

    @property
    def clips(self) -> int:
        return sum(len(recording.said) for recording in self.recordings)


@dataclass(frozen=True)
class Long:
    """The clips of a set in their places, and the same ones alone: by the untouched base and by the version."""

    of: LongSet
    both: Comparison
    single: Comparison

    def reports(self, prepared: Prepared) -> tuple[dict[str, SetReport], dict[str, SetReport]]:
        """The sets of a report, and those of its baseline: `joined` and `joined_clips`."""
        named = {self.of.name: self.both, f"{self.of.name}{contract.ALONE}": self.single}
        after = {name: set_report(prepared, each.after, self.of.digest) for name, each in named.items()}
        before = {name: set_report(prepared, each.before, self.of.digest) for name, each in named.items()}
        return after, before

    def metrics(self) -> dict[str, float]:
        """What is logged beside the comparison's own, of version and base."""
        name = self.of.name
        found = _figures(name, self.both.after, self.single.after)
        return found | {f"baseline_{k}": v for k, v in _figures(name, self.both.before, self.single.before).items()}

    @property
    def text(self) -> str:
        """In a line, beside the base."""
        what = f"{self.of.name}: {len(self.of.recordings)} long recordings of {self.of.clips} clips"
        version = _told(self.both.after, self.single.after)
        return f"{what}: {version}; the untouched base: {_told(self.both.before, self.single.before)}"


def long_sets(prepared: Prepared) -> list[LongSet]:
    """Those that the project has clips for."""
    found = [
        LongSet(contract.JOINED_SET, "test", joined_recordings(prepared.dataset["test"])),
        LongSet(contract.LONG_SET, LONG_SPLIT, whole_recordings(prepared.dataset[LONG_SPLIT])),
    ]
    return [each for each in found if each.recordings]


def compare_long(prepared: Prepared, voice: Voice, across: Across, long: LongSet, single: Comparison) -> Long:
    """A set written as the version serves and by the base; `single` are the clips of its split, written by both."""
    groups = together(long.recordings)
    written = [each for group in across(groups, lambda group: write_long(voice, group)) for each in group]
    by_base = score_long(prepared, long.recordings, base_segments(prepared, long.recordings))
    both = Comparison(by_base, score_long(prepared, long.recordings, written))
    apart = Comparison(alone(single.before, long.recordings), alone(single.after, long.recordings))
    return Long(long, both, apart)


def base_segments(prepared: Prepared, recordings: Sequence[LongRecording]) -> list[list[Segment]]:
    """What the untouched base writes in windows of 30 s with times, its own way with long recordings; it is kept."""
    decode = baseline_decode(prepared.project.trial.decode)
    settings = decode.model_dump(exclude={"batch_size", "batch_seconds"} | OF_A_BOOST)
    heard = [f"{recording.digest} {recording.language}" for recording in recordings]
    name = texts_name(prepared, settings, heard, "in windows", MOST_S)
    texts = kept_or_written(prepared, name, len(recordings), lambda: _timed_texts(prepared, recordings))
    return [_segments(text) for text in texts]


def _timed_texts(prepared: Prepared, recordings: Sequence[LongRecording]) -> list[str]:
    whisper = prepared.whisper(prepared.project.trial.quantization)
    decode = baseline_decode(prepared.project.trial.decode)
    texts = list[str]()
    for group in together(recordings):
        clips = [recording.samples() for recording in group]
        written = transcribe_windows(whisper, clips, FULL_CONTEXT, decode, language=group[0].language)
        texts += ["".join(f"<|{s.start_s:.2f}|> {s.text}<|{s.end_s:.2f}|>" for s in each.segments) for each in written]
    return texts


def _segments(text: str) -> list[Segment]:
    """Of Whisper's own notation, as rows of manifests may hold it."""
    listed = listed_segments({"text": text}) or []
    return [Segment(each["start_s"], each["end_s"], each["text"], 0.0) for each in listed]


def border_errors_s(scores: Scores) -> list[float]:
    """Of all starts and ends; none where no times were written."""
    return [error for utterance in scores.utterances for error in utterance.border_errors_s]


def skipped_share(scores: Scores) -> float:
    """Of the words that are said, those left out three and more in a row."""
    return sum(utterance.skipped_words for utterance in scores.utterances) / max(scores.words.length, 1)


def _figures(name: str, in_place: Scores, single: Scores) -> dict[str, float]:
    found = {
        f"{name}_clips_wer": single.wer,
        f"{name}_skipped_share": skipped_share(in_place),
        f"{name}_clips_skipped_share": skipped_share(single),
    }
    if errors := border_errors_s(in_place):
        median, most = np.quantile(errors, (0.5, 0.95))
        found |= {f"{name}_border_median_s": float(median), f"{name}_border_p95_s": float(most)}
    return found


def _told(in_place: Scores, single: Scores) -> str:
    figures = f"WER {in_place.wer:.2%}, of the same clips alone {single.wer:.2%}"
    left_out = f"{in_place.words.deletions} of {in_place.words.length} words left out ({single.words.deletions} alone)"
    errors = border_errors_s(in_place)
    times = "no times"
    if errors:
        median, most = np.quantile(errors, (0.5, 0.95))
        times = f"borders within {median:.2f} s in the median, 95 % within {most:.2f} s"
    return f"{figures}, {left_out}, {skipped_share(in_place):.2%} in runs, {times}"
