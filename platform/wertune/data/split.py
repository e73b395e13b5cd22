"""One manifest as train, validation and test that share no speaker and no sentence, and what could not be kept."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wertune.base.errors import ConfigError, ManifestError
from wertune.base.files import storing, write_rows, write_text
from wertune.base.text import Normalise, TermFinder
from wertune.data.manifest import Looked, Row, read_rows
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
    rows: Sequence[Row], shares: Sequence[float], normalise: Normalise, finder: TermFinder, per_term: int, seed: int
) -> Division:
    """Every row in one split or dropped; the same for the same rows, shares and seed.

    Sentences are the same where their normalised texts are. Rows without a speaker go by their recording.
    """
    texts = [normalise(row.text) for row in rows]
    utterances: dict[int, Utterance] = {}
    for number, (row, text) in enumerate(zip(rows, texts, strict=True)):
        if text:
            speaker = ("speaker", row.speaker) if row.speaker else ("recording", row.audio_filepath)
            utterances[number] = Utterance(speaker, text, tuple(finder.find(row.text).elements()))
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
            dropped[number] = f"its speaker is in {by_speaker}, its sentence in {by_sentence}"
    return Division({split: tuple(found) for split, found in splits.items()}, dict(sorted(dropped.items())), terms)


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
) -> dict[str, Any]:
    """Writes train.jsonl, validation.jsonl, test.jsonl and split.json to `out` and returns the last one's content.

    Nothing is written over, and nothing is written where a split would be empty. Where the audio was `looked` at, rows
    with faults are dropped for these, and the others last as long as they were heard to.
    """
    files = [out / name for name in (*(f"{split}.jsonl" for split in SPLITS), REPORT)]
    if standing := [str(path) for path in files if path.exists()]:
        remedy = "give another --out or remove them"
        raise ConfigError(f"{', '.join(standing)} exist, and nothing is written over; {remedy}")
    looked = looked or Looked({}, {})
    read = [each for each in read_rows(manifest) if each[0] not in looked.faults]
    division = divide([row for _, _, row in read], shares, normalise, finder, per_term, seed)
    empty = [split for split in SPLITS if not division.splits[split]]
    if empty:
        rule = "each split needs speakers and sentences of its own"
        remedy = "bring more speakers or sentences, or name the speakers of the rows"
        unusable = "".join(
            f"{manifest}: {line}\n" for line in _told(looked.faults.values(), len(read) + len(looked.faults))
        )
        raise ManifestError(f"{unusable}{manifest}: {', '.join(empty)} would be empty, but {rule}; {remedy}")
    report = _report(manifest, read, division, shares, per_term, seed, looked)
    with storing("the manifests", out, "free some space there, or give --out a folder that can be written"):
        for split in SPLITS:
            write_rows(out / f"{split}.jsonl", [_moved(read[i][1], manifest, out) for i in division.splits[split]])
        write_text(out / REPORT, json.dumps(report, ensure_ascii=False, indent=1) + "\n")
    return report


def _moved(values: Mapping[str, Any], manifest: Path, out: Path) -> dict[str, Any]:
    """The row with its path relative to the new manifest; all else as it stands."""
    path = Path(str(values["audio_filepath"]))
    if path.is_absolute():
        return dict(values)
    here = os.path.relpath((manifest.parent / path).resolve(), out.resolve())
    return dict(values) | {"audio_filepath": Path(here).as_posix()}


def _report(
    manifest: Path,
    read: Sequence[tuple[int, dict[str, Any], Row]],
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
        lines = [read[i][0] for i in division.splits[split]]
        rows = [read[i][2] for i in division.splits[split]]
        durations_s = [looked.durations_s.get(line, row.duration or 0.0) for line, row in zip(lines, rows, strict=True)]
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
        "dropped": [{"line": line, "reason": reason} for line, reason in sorted(reasons.items())],
    }


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
