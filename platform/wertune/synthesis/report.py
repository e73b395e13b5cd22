"""What was spoken: clips by split, by term and by voice, as tables, Markdown and JSON."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wertune.base.files import write_text
from wertune.base.text import Lexicon
from wertune.synthesis.config import Voice
from wertune.synthesis.sentences import MIN_TRAIN_SENTENCES, Speller

DOMAIN = ("train", "validation", "test")
REPORT = "synthesis_report"
Rows = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class SplitRow:
    """One split; `channels` are clips of each."""

    split: str
    clips: int
    minutes: float
    sentences: int
    speakers: int
    channels: dict[str, int]


@dataclass(frozen=True)
class TermRow:
    """A term of the lexicon: clips and sentences of train, validation and test."""

    term: str
    spoken: str
    spelt: bool  # the lexicon gives no spoken form
    clips: dict[str, int]
    sentences: dict[str, int]

    @property
    def lacks(self) -> str:
        """What is to be written for it, or nothing."""
        found = []
        if not any(self.sentences.values()):
            return "stands in no sentence"
        if not self.sentences["test"]:
            found.append("no test sentence")
        if self.sentences["train"] < MIN_TRAIN_SENTENCES:
            found.append(f"{self.sentences['train']} of {MIN_TRAIN_SENTENCES} training sentences")
        return ", ".join(found)


@dataclass(frozen=True)
class VoiceRow:
    """A voice and what it said."""

    voice: str
    engine: str
    speaker: str
    split: str
    clips: int
    minutes: float
    licence: str


@dataclass(frozen=True)
class SynthesisReport:
    """What was written; see `markdown`."""

    manifests: dict[str, Path]
    splits: tuple[SplitRow, ...]
    terms: tuple[TermRow, ...]
    voices: tuple[VoiceRow, ...]
    engines_not_used: dict[str, str]
    audio_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Plain values; the manifests by their file names."""
        terms = [{**asdict(row), "lacks": row.lacks} for row in self.terms]
        return {**asdict(self), "terms": terms, "manifests": {split: p.name for split, p in self.manifests.items()}}

    def markdown(self) -> str:
        """Tables whose columns also line up in a terminal."""
        parts = [
            "# What was spoken", _splits_table(self.splits), "## Terms", _terms_table(self.terms), _lacking(self.terms),
            "## Voices", _voices_table(self.voices), *(f"- {e}: {why}" for e, why in self.engines_not_used.items()),
        ]  # fmt: skip
        return "\n\n".join(part for part in parts if part) + "\n"

    def write(self) -> Path:
        """`synthesis_report.json` and `.md` beside the manifests; the path of the latter."""
        folder = next(iter(self.manifests.values())).parent
        text = json.dumps(self.to_json(), ensure_ascii=False, indent=1) + "\n"
        for suffix, content in (("json", text), ("md", self.markdown())):
            write_text(folder / f"{REPORT}.{suffix}", content)
        return folder / f"{REPORT}.md"


def build_report(
    manifests: dict[str, Path],
    rows: Rows,
    lexicon: Lexicon,
    speller: Speller,
    voices: Sequence[Voice],
    not_used: Mapping[str, str],
    audio_bytes: int,
) -> SynthesisReport:
    """From the manifests' rows."""
    return SynthesisReport(
        manifests,
        tuple(_split_row(split, found) for split, found in rows.items()),
        _term_rows(rows, lexicon, speller),
        tuple(_voice_row(voice, rows) for voice in voices),
        dict(not_used),
        audio_bytes,
    )


def _split_row(split: str, rows: Sequence[Mapping[str, Any]]) -> SplitRow:
    sentences, speakers = ({row[key] for row in rows} for key in ("sentence", "speaker"))
    channels = dict(sorted(Counter(row["channel"] for row in rows).items()))
    return SplitRow(split, len(rows), _minutes(rows), len(sentences), len(speakers), channels)


def _minutes(rows: Sequence[Mapping[str, Any]]) -> float:
    return round(sum(float(row["duration"]) for row in rows) / 60, 2)


def _term_rows(rows: Rows, lexicon: Lexicon, speller: Speller) -> tuple[TermRow, ...]:
    clips = {split: Counter(term for row in rows[split] for term in row["terms"]) for split in DOMAIN}
    texts = {split: {row["sentence"]: row["text"] for row in rows[split]} for split in DOMAIN}
    sentences = {split: Counter(t for text in texts[split].values() for t in speller.terms(text)) for split in DOMAIN}
    return tuple(
        TermRow(
            entry.term,
            speller.spoken(entry.term),
            entry.spoken is None,
            {split: clips[split][entry.term] for split in DOMAIN},
            {split: sentences[split][entry.term] for split in DOMAIN},
        )
        for entry in lexicon.terms
    )


def _voice_row(voice: Voice, rows: Rows) -> VoiceRow:
    own = [row for found in rows.values() for row in found if row["voice"] == voice.id]
    return VoiceRow(voice.id, voice.engine, voice.speaker, voice.split, len(own), _minutes(own), voice.licence)


def _splits_table(rows: Sequence[SplitRow]) -> str:
    channels = sorted({channel for row in rows for channel in row.channels})
    head = ["split", "clips", "minutes", "sentences", "speakers", *channels]
    return _table(head, [
        [row.split, row.clips, f"{row.minutes:.1f}", row.sentences, row.speakers,
         *(row.channels.get(channel, 0) for channel in channels)]
        for row in rows
    ])  # fmt: skip


def _terms_table(rows: Sequence[TermRow]) -> str:
    if not rows:
        return "The project has no lexicon: no term is counted, and none is said other than it is written."
    head = ["term", "said", *(f"{split} clips (sentences)" for split in DOMAIN)]
    return _table(head, [
        [row.term, row.spoken + (" *" if row.spelt else ""),
         *(f"{row.clips[split]} ({row.sentences[split]})" for split in DOMAIN)]
        for row in rows
    ])  # fmt: skip


def _lacking(rows: Sequence[TermRow]) -> str:
    lines = ["Terms with * have no spoken form in the lexicon: listen to a clip, and add `spoken:` where it is wrong."]
    lines = lines if any(row.spelt for row in rows) else []
    lacking = [f"{row.term} ({row.lacks})" for row in rows if row.lacks]
    if lacking:
        lines.append(f"Sentences are missing for {len(lacking)} of {len(rows)} terms: {'; '.join(lacking)}.")
    if unheard := [row.term for row in rows if not row.sentences["validation"] and any(row.sentences.values())]:
        lines.append(f"Not in validation: {', '.join(unheard)}.")
    return "\n\n".join(lines)


def _voices_table(rows: Sequence[VoiceRow]) -> str:
    ordered = sorted(rows, key=lambda row: (*DOMAIN, "final").index(row.split))
    head = ["voice", "engine", "speaker", "split", "clips", "minutes", "licence"]
    return _table(head, [
        [row.voice, row.engine, row.speaker, row.split, row.clips, f"{row.minutes:.1f}", row.licence]
        for row in ordered
    ])  # fmt: skip


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Markdown with padded columns, Chinese letters counted as two; a pipe in a cell would end it."""
    from rich.cells import cell_len

    cells = [list(head), *([str(cell).replace("|", "\\|") for cell in row] for row in rows)]
    widths = [max(cell_len(row[column]) for row in cells) for column in range(len(head))]
    padded = [[cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)] for row in cells]
    lines = ["| " + " | ".join(row) + " |" for row in padded]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])
