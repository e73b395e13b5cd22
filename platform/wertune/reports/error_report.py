"""The errors of a base and of its adapter, clip by clip with their sound, as one HTML file that needs nothing else."""

import base64
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile

from wertune.base.text import Normalise
from wertune.data.clip_files import encode_opus
from wertune.data.manifest import Recording
from wertune.reports.html_page import PAGES, embedded_json, page, rendered, resource
from wertune.scores.alignment import Pair, align, confusions, in_columns
from wertune.scores.bootstrap import Interval
from wertune.scores.comparison import Comparison, shown_rate
from wertune.scores.intervals import cer_interval, precision_interval, recall_interval, wer_change, wer_interval
from wertune.scores.metrics import Scores, Utterance

MAX_PAGE_BYTES = 20_000_000
CLIP_KBPS = 12
# A file that is Opus already goes in as it stands up to this rate.
KEPT_KBPS = 24
SHOWN_CONFUSIONS = 200
ENCODED_AT_ONCE = 64


@dataclass(frozen=True)
class ScoredSet:
    """A set's recordings and how the base and the adapter wrote them, in the same order."""

    name: str
    recordings: Sequence[Recording]
    both: Comparison


def error_report(
    title: str, facts: str, sets: Sequence[ScoredSet], normalise: Normalise, max_bytes: int = MAX_PAGE_BYTES
) -> str:
    """The page, under `max_bytes`: where sound does not fit, clips with fewer errors go without, and it says so."""
    tables = [_table(scored, normalise) for scored in sets]
    frame = _page(title, facts, sets, tables, [])
    # Each row learns which sound is its own, in a few bytes more than the empty page's.
    count = sum(len(table["rows"]) for table in tables)
    clips = list(_fitting_clips(sets, tables, max_bytes - len(frame.encode()) - 16 * count))
    return _page(title, facts, sets, tables, clips)


def _page(
    title: str, facts: str, sets: Sequence[ScoredSet], tables: Sequence[Mapping[str, Any]], clips: Sequence[str]
) -> str:
    body = rendered(
        PAGES / "error_report.html",
        title=title,
        facts=facts,
        sets=[_summary(scored) for scored in sets],
        data=embedded_json(tables),
        clips=clips,
    )
    return page(title, body, resource("error_report.css"), resource("error_report.js"))


def _table(scored: ScoredSet, normalise: Normalise) -> dict[str, Any]:
    """A set as the page's script reads it."""
    before, after = scored.both.before, scored.both.after
    aligned = {name: list(_alignments(s, normalise)) for name, s in (("before", before), ("after", after))}
    rows = [
        _row(base, tuned, in_columns(left, right))
        for base, tuned, left, right in zip(
            before.utterances, after.utterances, aligned["before"], aligned["after"], strict=True
        )
    ]
    return {
        "name": scored.name,
        "label": scored.name.replace("_", " "),
        "rows": rows,
        "confusions": _confusion_rows(aligned["before"], aligned["after"]),
        "terms": _term_rows(before, after),
    }


def _alignments(scores: Scores, normalise: Normalise) -> Iterator[list[Pair]]:
    for utterance in scores.utterances:
        yield align(normalise(utterance.reference), normalise(utterance.hypothesis))


def _row(base: Utterance, tuned: Utterance, columns: Sequence[tuple[str, str, str]]) -> dict[str, Any]:
    return {
        "id": Path(base.id).name,  # the manifest's name and the line, never a folder of this machine
        "speaker": base.speaker,
        "channel": base.channel,
        "seconds": round(base.duration_s, 2),
        "reference": base.reference,
        "terms": sorted(set(base.terms) | set(tuned.terms)),
        "columns": columns,
        "systems": [
            {"text": u.hypothesis, "errors": u.words.errors, "missed": u.missed_terms, "false": u.false_terms}
            for u in (base, tuned)
        ],
    }


def _confusion_rows(before: Sequence[list[Pair]], after: Sequence[list[Pair]]) -> list[tuple[str, str, int, int]]:
    """`(said, written, times by the base, by the adapter)`: each system's own most frequent, the adapter's first."""
    base, tuned = confusions(before), confusions(after)
    shown = {pair for own, other in ((base, tuned), (tuned, base)) for pair in _most_frequent(own, other)}
    return [(pair.said, pair.written, base[pair], tuned[pair]) for pair in sorted(shown, key=_order(tuned, base))]


def _most_frequent(own: Counter[Pair], other: Counter[Pair]) -> list[Pair]:
    return sorted(own, key=_order(own, other))[:SHOWN_CONFUSIONS]


def _order(own: Counter[Pair], other: Counter[Pair]) -> Callable[[Pair], tuple[int, int, str, str]]:
    """A system's list: its own counts first, then the other's, then the alphabet."""
    return lambda pair: (-own[pair], -other[pair], pair.said, pair.written)


def _term_rows(before: Scores, after: Scores) -> list[dict[str, Any]]:
    """Each term that was said or written, the most often missed or made up by the adapter first."""
    base, tuned = before.by_term(), after.by_term()
    rows = [
        {
            "term": term,
            "said": next(c.hits + c.misses for c in (tuned.get(term), base.get(term)) if c),
            "missed": [counts.misses if counts else 0 for counts in (base.get(term), tuned.get(term))],
            "false": [counts.false_alarms if counts else 0 for counts in (base.get(term), tuned.get(term))],
        }
        for term in base | tuned
    ]
    return sorted(rows, key=lambda row: (-row["missed"][1] - row["false"][1], -row["missed"][0], row["term"]))


def _fitting_clips(sets: Sequence[ScoredSet], tables: Sequence[Mapping[str, Any]], budget_bytes: int) -> Iterator[str]:
    """Script elements with the clips' sound, those with most errors first; each row gets the number of its own."""
    wanted = [
        (recording, row) for scored, table in zip(sets, tables, strict=True)
        for recording, row in zip(scored.recordings, table["rows"], strict=True)
    ]  # fmt: skip
    wanted.sort(key=lambda each: -each[1]["systems"][1]["errors"])
    streams = _encoded([recording for recording, _ in wanted])
    for number, (_, row) in enumerate(wanted):
        element = _clip_element(number, next(streams)) if budget_bytes > 0 else ""
        budget_bytes -= len(element) + 1
        row["clip"] = number if element and budget_bytes >= 0 else None
        if row["clip"] is not None:
            yield element


def _encoded(recordings: Sequence[Recording]) -> Iterator[bytes]:
    """The sound of each, a batch ahead on all cores: it may end early, and Opus takes a fiftieth of a clip's time."""
    with ThreadPoolExecutor() as threads:
        for start in range(0, len(recordings), ENCODED_AT_ONCE):
            yield from threads.map(clip_audio, recordings[start : start + ENCODED_AT_ONCE])


def _clip_element(number: int, stream: bytes) -> str:
    return f'<script type="text/plain" id="clip-{number}">{base64.b64encode(stream).decode()}</script>'


def clip_audio(recording: Recording) -> bytes:
    """The row's sound as Ogg Opus: the file as it stands where it is just that and small, else encoded."""
    with soundfile.SoundFile(recording.path) as file:
        is_opus = (file.format, file.subtype) == ("OGG", "OPUS")
        is_whole = abs(len(file) / file.samplerate - recording.duration_s) < 0.02
    small = recording.path.stat().st_size * 8 <= KEPT_KBPS * 1000 * recording.duration_s
    if is_opus and is_whole and small:
        return recording.path.read_bytes()
    return encode_opus(recording.samples(), CLIP_KBPS)


Value = tuple[float | None, Interval | None]


def _summary(scored: ScoredSet) -> dict[str, Any]:
    """A set's figures before and after, with their intervals: name, both, and the change's where it is worked out."""
    before, after = scored.both.before, scored.both.after
    change = wer_change(before, after)
    rates: list[tuple[str, Value, Value, Interval | None]] = [
        ("WER", (before.wer, wer_interval(before)), (after.wer, wer_interval(after)), change),
        ("CER", (before.cer, cer_interval(before)), (after.cer, cer_interval(after)), None),
    ]
    if before.terms.hits + before.terms.misses:
        for name, measure in (("recall", recall_interval), ("precision", precision_interval)):
            base, tuned = ((shown_rate(scores.terms, name), measure(scores)) for scores in (before, after))
            rates.append((f"Term {name}", base, tuned, None))
    note = f"intervals over {change.note}" if change else "too few clips for intervals"
    said = sum(utterance.duration_s for utterance in after.utterances) / 60
    facts = f"{len(after.utterances)} clips, {said:.1f} minutes, {after.words.length} words; {note}"
    name = scored.name.replace("_", " ")
    return {"name": name, "facts": facts, "rates": rates, "edits": (before.words, after.words)}
