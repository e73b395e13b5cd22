"""One manifest as train, validation and test that share no recording, speaker or sentence, and what was not kept."""

import json
import os
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wertune.base.errors import ConfigError, ManifestError
from wertune.base.files import storing, write_rows, write_text
from wertune.base.text import Normalise, TermFinder
from wertune.data.manifest import Looked, read_rows
from wertune.data.rows import At, Row
from wertune.data.segments import with_segments
from wertune.data.split_search import CHECKED, SPLITS, Utterance, search

REPORT = "split.json"


@dataclass(frozen=True)
class Division:
    """Rows of each split and the reason of each dropped one, all by their number in the list; terms by split."""

    splits: Mapping[str, tuple[int, ...]]
    dropped: Mapping[int, str]
    terms: Mapping[str, Counter[str]]

    def short_terms(self, per_term: int) -> dict[str, dict[str, int]]:
        """Terms with less than `per_term` occurrences in train or in test, and how many they have there."""
        checked = [SPLITS[i] for i in CHECKED]
        names = sorted({term for counts in self.terms.values() for term in counts})
        found = {name: {split: self.terms[split][name] for split in checked} for name in names}
        return {name: counts for name, counts in found.items() if min(counts.values()) < per_term}


def divide(
    rows: Sequence[Row],
    shares: Sequence[float],
    normalise: Normalise,
    finder: TermFinder,
    per_term: int,
    seed: int,
    recordings: Sequence[str] = (),
    speakers_apart: bool = True,
) -> Division:
    """Every row in one split or dropped; the same for the same rows, shares and seed.

    Sentences are the same where their normalised texts are. What is of one recording stays together, and so does what
    is by one speaker where `speakers_apart`. `recordings` name that of each row; not given, the rows do.
    """
    texts = [normalise(row.text) for row in rows]
    names = recordings or [row.recording or row.audio_filepath for row in rows]
    groups = _groups(rows, names, speakers_apart)
    utterances: dict[int, Utterance] = {}
    for number, (row, text) in enumerate(zip(rows, texts, strict=True)):
        if text:
            utterances[number] = Utterance(groups[number], text, tuple(finder.find(row.text).elements()))
    assignment = search(list(utterances.values()), shares, per_term, seed) if utterances else {}
    splits: dict[str, list[int]] = {split: [] for split in SPLITS}
    terms = {split: Counter[str]() for split in SPLITS}
    for all_terms in (utterance.terms for utterance in utterances.values()):
        for counts in terms.values():
            counts.update(dict.fromkeys(all_terms, 0))
    dropped = {number: "text is empty after normalisation" for number, text in enumerate(texts) if not text}
    for number, utterance in utterances.items():
        by_speaker, by_sentence = (SPLITS[assignment[key]] for key in utterance.keys)
        if by_speaker == by_sentence:
            splits[by_speaker].append(number)
            terms[by_speaker].update(utterance.terms)
        else:
            of = "speaker" if rows[number].speaker and speakers_apart else "recording"
            dropped[number] = f"its {of} is in {by_speaker}, its sentence in {by_sentence}"
    return Division({split: tuple(found) for split, found in splits.items()}, dict(sorted(dropped.items())), terms)


def _groups(rows: Sequence[Row], recordings: Sequence[str], speakers_apart: bool) -> list[int]:
    """By row, the number of what must stay together: recordings, and by their speakers others."""
    import networkx

    keys: list[list[Hashable]] = [[("recording", recording)] for recording in recordings]
    for row, own in zip(rows, keys, strict=True):
        own += [("speaker", row.speaker)] if row.speaker and speakers_apart else []
    graph = networkx.Graph()
    for own in keys:
        networkx.add_path(graph, own)
    found = enumerate(networkx.connected_components(graph))
    number_of = {key: number for number, component in found for key in component}
    return [number_of[own[0]] for own in keys]


def parse_shares(text: str) -> tuple[float, float, float]:
    """`80,10,10` or `0.8,0.1,0.1`, of train, validation and test; ConfigError."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 3 or not all(0 < number < 1e9 for number in numbers):
        rule = "must be three numbers above 0, of train, validation and test"
        raise ConfigError(f"--shares is {text!r}, but {rule}; give such as 80,10,10")
    train, validation, test = (number / sum(numbers) for number in numbers)
    return train, validation, test


def split_manifest(
    manifest: Path,
    out: Path,
    shares: Sequence[float],
    normalise: Normalise,
    finder: TermFinder,
    per_term: int,
    seed: int,
    looked: Looked | None = None,
    speakers_apart: bool = True,
) -> dict[str, Any]:
    """Writes train.jsonl, validation.jsonl, test.jsonl and split.json to `out` and returns the last one's content.

    Nothing is written over, and nothing is written where a split would be empty. Where the audio was `looked` at, rows
    with faults are dropped for these, and the others last as long as they were heard to.
    """
    files = [out / name for name in (*(f"{split}.jsonl" for split in SPLITS), REPORT)]
    if standing := [str(path) for path in files if path.exists()]:
        remedy = "give another --out or remove them"
        raise ConfigError(f"{', '.join(standing)} exist, and nothing is written over; {remedy}")
    looked = looked or Looked({}, {}, {})
    read = [each for each in read_rows(manifest) if not {each[0], At(each[0].line)} & looked.faults.keys()]
    rows = [row for _, _, row in read]
    recordings = [looked.origins.get(at, row.recording or row.audio_filepath) for at, _, row in read]
    division = divide(rows, shares, normalise, finder, per_term, seed, recordings, speakers_apart)
    empty = [split for split in SPLITS if not division.splits[split]]
    if empty:
        rule = "each split needs recordings, speakers and sentences of its own"
        remedy = "bring more speakers or sentences, or name the speakers of the rows"
        if speakers_apart:
            remedy += "; where speakers may be in several, set data.disjoint_speakers: false"
        unusable = "".join(
            f"{manifest}: {line}\n" for line in _told(looked.faults.values(), len(read) + len(looked.faults))
        )
        raise ManifestError(f"{unusable}{manifest}: {', '.join(empty)} would be empty, but {rule}; {remedy}")
    report = _report(manifest, read, division, shares, per_term, seed, looked)
    with storing("the manifests", out, "free some space there, or give --out a folder that can be written"):
        for split in SPLITS:
            lines = _lines([read[i][:2] for i in division.splits[split]])
            write_rows(out / f"{split}.jsonl", [_moved(values, manifest, out) for values in lines])
        write_text(out / REPORT, json.dumps(report, ensure_ascii=False, indent=1) + "\n")
    return report


def _lines(read: Iterable[tuple[At, dict[str, Any]]]) -> list[dict[str, Any]]:
    """The lines of rows, one with those of its segments that are there."""
    found: dict[int, tuple[dict[str, Any], list[int]]] = {}
    for at, values in read:
        found.setdefault(at.line, (values, []))[1].append(at.segment)
    return [with_segments(values, numbers) for values, numbers in found.values()]


def _moved(values: Mapping[str, Any], manifest: Path, out: Path) -> dict[str, Any]:
    """The row with its path relative to the new manifest; all else as it stands."""
    path = Path(str(values["audio_filepath"]))
    if path.is_absolute():
        return dict(values)
    here = os.path.relpath((manifest.parent / path).resolve(), out.resolve())
    return dict(values) | {"audio_filepath": Path(here).as_posix()}


def _report(
    manifest: Path,
    read: Sequence[tuple[At, dict[str, Any], Row]],
    division: Division,
    shares: Sequence[float],
    per_term: int,
    seed: int,
    looked: Looked,
) -> dict[str, Any]:
    reasons = {read[i][0]: reason for i, reason in division.dropped.items()} | looked.faults
    kept = sum(len(numbers) for numbers in division.splits.values())
    splits = {}
    for split, asked in zip(SPLITS, shares, strict=True):
        found = [(read[i][0], read[i][2]) for i in division.splits[split]]
        rows = [row for _, row in found]
        durations_s = [looked.durations_s.get(at, row.duration or 0.0) for at, row in found]
        splits[split] = {
            "rows": len(rows),
            "share": len(rows) / kept,
            "asked": asked,
            "minutes": round(sum(durations_s) / 60, 2),
            "speakers": len({row.speaker for row in rows if row.speaker}),
            "terms": sum(count > 0 for count in division.terms[split].values()),
        }
    return {
        "manifest": manifest.name,
        "seed": seed,
        "rows": len(read) + len(looked.faults),
        "kept": kept,
        "splits": splits,
        "per_term": per_term,
        "short_terms": division.short_terms(per_term),
        "dropped": [_where(at) | {"reason": reason} for at, reason in sorted(reasons.items())],
    }


def _where(at: At) -> dict[str, Any]:
    return {"line": at.line} | ({"segment": at.segment} if at.segment >= 0 else {})


def describe(report: Mapping[str, Any]) -> str:
    """The report in some lines."""
    lines = [
        f"{name}: {s['rows']} rows, {s['share']:.1%} (asked {s['asked']:.1%}), {s['minutes']:.1f} minutes, "
        f"{s['speakers']} speakers, {s['terms']} terms"
        for name, s in report["splits"].items()
    ]
    lines += _told((each["reason"] for each in report["dropped"]), report["rows"])
    short = report["short_terms"]
    if short:
        told = ", ".join(f"{name} ({c['train']} in train, {c['test']} in test)" for name, c in list(short.items())[:8])
        more = f" and {len(short) - 8} more" if len(short) > 8 else ""
        lines.append(f"under {report['per_term']} occurrences: {told}{more}; record more of them")
    return "\n".join(lines)


def _told(reasons: Iterable[str], rows: int) -> list[str]:
    """How many of the rows are dropped, a line for all of a kind, as "the same audio as manifest.jsonl:12; …"."""
    kinds = Counter(re.split(r" as [^ ]+:\d|;", reason)[0] for reason in reasons)
    return [f"dropped {count} of {rows} rows: {kind}" for kind, count in kinds.most_common()]
