"""The errors of a base and of its adapter, clip by clip with their sound, as one HTML file that needs nothing else."""

import base64
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import soundfile

from wertune.base.text import Normalise
from wertune.data.clip_files import encode_opus
from wertune.data.manifest import Recording
from wertune.reports.html_page import PAGES, embedded_json, page, rendered, resource
from wertune.scores.alignment import Pair, align, confusions, in_columns
from wertune.scores.comparison import Comparison, wer_change
from wertune.scores.metrics import Scores, TermCounts, Utterance

MAX_PAGE_BYTES = 20_000_000
CLIP_KBPS = 12
# A file that is Opus already goes in as it stands up to this rate.
KEPT_KBPS = 24
SHOWN_CONFUSIONS = 200
ENCODED_AT_ONCE = 64
CLIP = '<script type="text/plain" id="clip-{}">{}</script>'


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
    left, right = (
        [align(normalise(u.reference), normalise(u.hypothesis)) for u in scores.utterances]
        for scores in (before, after)
    )
    pairs = zip(before.utterances, after.utterances, map(in_columns, left, right), strict=True)
    return {
        "name": scored.name,
        "label": scored.name.replace("_", " "),
        "rows": [_row(*pair) for pair in pairs],
        "confusions": _confusion_rows(left, right),
        "terms": _term_rows(before, after),
    }


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
    listed = (sorted(own, key=_order(own, other))[:SHOWN_CONFUSIONS] for own, other in ((base, tuned), (tuned, base)))
    shown = sorted(set(chain(*listed)), key=_order(tuned, base))
    return [(pair.said, pair.written, base[pair], tuned[pair]) for pair in shown]


def _order(own: Counter[Pair], other: Counter[Pair]) -> Callable[[Pair], tuple[int, int, str, str]]:
    """A system's list: its own counts first, then the other's, then the alphabet."""
    return lambda pair: (-own[pair], -other[pair], pair.said, pair.written)


def _term_rows(before: Scores, after: Scores) -> list[dict[str, Any]]:
    """Each term that was said or written, the most often missed or made up by the adapter first."""
    base, tuned = before.by_term(), after.by_term()
    rows: list[dict[str, Any]] = []
    for term in base | tuned:
        both = [counts.get(term, TermCounts()) for counts in (base, tuned)]
        missed, false = [each.misses for each in both], [each.false_alarms for each in both]
        rows.append({"term": term, "said": max(each.said for each in both), "missed": missed, "false": false})
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
        element = CLIP.format(number, base64.b64encode(next(streams)).decode()) if budget_bytes > 0 else ""
        budget_bytes -= len(element) + 1
        row["clip"] = number if element and budget_bytes >= 0 else None
        if row["clip"] is not None:
            yield element


def _encoded(recordings: Sequence[Recording]) -> Iterator[bytes]:
    """The sound of each, a batch ahead on all cores: it may end early, and Opus takes a fiftieth of a clip's time."""
    with ThreadPoolExecutor() as threads:
        for start in range(0, len(recordings), ENCODED_AT_ONCE):
            yield from threads.map(clip_audio, recordings[start : start + ENCODED_AT_ONCE])


def clip_audio(recording: Recording) -> bytes:
    """The row's sound as Ogg Opus: the file as it stands where it is just that and small, else encoded."""
    with soundfile.SoundFile(recording.path) as file:
        is_opus = (file.format, file.subtype) == ("OGG", "OPUS")
        is_whole = abs(len(file) / file.samplerate - recording.duration_s) < 0.02
    small = recording.path.stat().st_size * 8 <= KEPT_KBPS * 1000 * recording.duration_s
    if is_opus and is_whole and small:
        return recording.path.read_bytes()
    return encode_opus(recording.samples(), CLIP_KBPS)


def _summary(scored: ScoredSet) -> dict[str, Any]:
    """A set's figures before and after, with their intervals, and that of the first one's change."""
    before, after = scored.both.before, scored.both.after
    change = wer_change(before, after)
    note = f"intervals over {change.note}" if change else "too few clips for intervals"
    said = sum(utterance.duration_s for utterance in after.utterances) / 60
    facts = f"{len(after.utterances)} clips, {said:.1f} minutes, {after.words.length} words; {note}"
    rates = {"rates": scored.both.rates(), "change": change, "edits": (before.words, after.words)}
    return {"name": scored.name.replace("_", " "), "facts": facts, **rates}
