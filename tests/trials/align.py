"""How well `wertune align` finds sentences in recordings joined from the demo's clips: `python -m tests.trials.align`.

Truth is where the energy of each clip's speech begins and ends. A segment is within 0.2 s where both of its borders
are; its text is wrong where it is strange or half of it is said elsewhere; it holds other speech, or lacks some of its
own, where a border is off by more than half a second.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
from tests.support.joined import Said, changed, join

from wertune.alignment.align import Segment, align
from wertune.alignment.cutting import Timed
from wertune.alignment.hearing import Listener
from wertune.alignment.recording import Window
from wertune.base.config import load_project
from wertune.whisper.base_model import resolve_base_model
from wertune.whisper.model import load_whisper

WITHIN_S, OFF_S = 0.2, 0.5
SHARES = {"clean": (0.0, 0.0), "10 % out": (0.1, 0.0), "10 % strange": (0.0, 0.1), "both": (0.1, 0.1)}


class Remembering:
    """Writes each window once, whatever transcripts are laid beside the recording; windows are followed anew."""

    def __init__(self, listener: Listener) -> None:
        self._listener, self._written = listener, dict[tuple[float, int], Timed]()

    def write(self, window: Window) -> Timed:
        key = window.start_s, window.samples.size
        if key not in self._written:
            self._written[key] = self._listener.write(window)
        return self._written[key]


def told(kept: Sequence[Segment], transcript: Sequence[str], said: Sequence[Said]) -> str:
    """One line of what was kept of the sentences that are in both."""
    truth = {each.text: each for each in said}
    both = sum(text in truth for text in transcript)
    known = [(each, truth[each.text]) for each in kept if each.text in truth]
    errors_s = [max(abs(each.start_s - true.start_s), abs(each.end_s - true.end_s)) for each, true in known]
    elsewhere = sum(_shared_s(each, true) < (true.end_s - true.start_s) / 2 for each, true in known)
    within = sum(error <= WITHIN_S for error in errors_s)
    strange = len(kept) - len(known)
    borders = sorted(error for each, true in known for error in _errors_s(each, true))
    off = sum(error > OFF_S for error in errors_s)
    return (
        f"kept {len(known)} of {both} ({len(known) / both:.1%}), both borders within 0.2 s: {within / len(known):.1%}, "
        f"median border error {borders[len(borders) // 2]:.3f} s, wrong texts {strange + elsewhere} "
        f"(strange {strange}, elsewhere {elsewhere}), a border off by more than 0.5 s: {off}"
    )


def _errors_s(segment: Segment, true: Said) -> tuple[float, float]:
    return abs(segment.start_s - true.start_s), abs(segment.end_s - true.end_s)


def _shared_s(segment: Segment, true: Said) -> float:
    return min(segment.end_s, true.end_s) - max(segment.start_s, true.start_s)


def main(arguments: Sequence[str] | None = None, say: Callable[[str], object] = print) -> None:
    """Says a line for each transcript of each recording."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", default="train,validation")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--min-score", type=float, default=0.25)
    asked = parser.parse_args(arguments)
    config = load_project(Path("projects/sg_gov"))
    whisper = load_whisper(resolve_base_model(config.base_model.source).path, "en", config.trial.quantization)
    listener, process = Listener(whisper, config.trial.decode), psutil.Process()
    with tempfile.TemporaryDirectory() as folder:
        for seed in asked.seeds:
            recording = Path(folder) / f"{seed}.wav"
            said = join(asked.splits.split(","), asked.minutes, seed, recording)
            hearer = Remembering(listener)
            for name, (out, strange) in SHARES.items():
                transcript, start = changed(said, out, strange, seed), time.process_time()
                found = align(recording, transcript, hearer, listener, lambda _: None)
                kept = [each for each in found.segments if each.score >= asked.min_score]
                took = f"{time.process_time() - start:.0f} s of processors, {process.memory_info().rss >> 20} MB"
                say(f"seed {seed}, {found.duration_s / 60:.0f} minutes, {name}: {told(kept, transcript, said)}; {took}")


if __name__ == "__main__":
    main()
