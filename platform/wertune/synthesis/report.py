"""What was spoken: clips by split, by term and by voice, as tables, Markdown and JSON."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wertune.base.files import write_text
from wertune.scores.comparison import markdown_table
from wertune.synthesis.config import Voice
from wertune.synthesis.project import SynthesisProject
from wertune.synthesis.sentences import MIN_TRAIN_SENTENCES

DOMAIN = ("train", "validation", "test")
REPORT = "synthesis_report"
Row = dict[str, Any]
Rows = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class SynthesisReport:
    """What was written, a row a split, a term of the lexicon and a voice; see `markdown`."""

    manifests: dict[str, Path]
    splits: list[Row]
    terms: list[Row]
    voices: list[Row]
    engines_not_used: dict[str, str]
    audio_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Plain values; the manifests by their file names."""
        return {**vars(self), "manifests": {split: path.name for split, path in self.manifests.items()}}

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
    project: SynthesisProject, manifests: dict[str, Path], rows: Rows, audio_bytes: int
) -> SynthesisReport:
    """From the manifests' rows."""
    return SynthesisReport(
        manifests,
        [_split_row(split, found) for split, found in rows.items()],
        _term_rows(project, rows),
        [_voice_row(voice, rows) for voice in project.config.voices],
        dict(project.absent_engines),
        audio_bytes,
    )


def _split_row(split: str, rows: Sequence[Mapping[str, Any]]) -> Row:
    sentences, speakers = (len({row[key] for row in rows}) for key in ("sentence", "speaker"))
    channels = dict(sorted(Counter(row["channel"] for row in rows).items()))
    said = {"split": split, "clips": len(rows), "minutes": _minutes(rows)}
    return said | {"sentences": sentences, "speakers": speakers, "channels": channels}


def _minutes(rows: Sequence[Mapping[str, Any]]) -> float:
    return round(sum(float(row["duration"]) for row in rows) / 60, 2)


def _term_rows(project: SynthesisProject, rows: Rows) -> list[Row]:
    """Clips and sentences of train, validation and test; `spelt`: the lexicon gives no spoken form."""
    speller, found = project.speller, []
    texts = {split: {row["sentence"]: row["text"] for row in rows[split]} for split in DOMAIN}
    clips = {split: Counter(term for row in rows[split] for term in row["terms"]) for split in DOMAIN}
    sentences = {split: Counter(t for text in texts[split].values() for t in speller.terms(text)) for split in DOMAIN}
    for entry in project.lexicon.terms:
        named = {"term": entry.term, "spoken": speller.spoken(entry.term), "spelt": entry.spoken is None}
        in_clips, in_sentences = ({split: of[split][entry.term] for split in DOMAIN} for of in (clips, sentences))
        found.append(named | {"clips": in_clips, "sentences": in_sentences, "lacks": _lacks(in_sentences)})
    return found


def _lacks(sentences: Mapping[str, int]) -> str:
    """What is to be written for a term, or nothing."""
    if not any(sentences.values()):
        return "stands in no sentence"
    found = [] if sentences["test"] else ["no test sentence"]
    if sentences["train"] < MIN_TRAIN_SENTENCES:
        found.append(f"{sentences['train']} of {MIN_TRAIN_SENTENCES} training sentences")
    return ", ".join(found)


def _voice_row(voice: Voice, rows: Rows) -> Row:
    own = [row for found in rows.values() for row in found if row["voice"] == voice.id]
    named = {"voice": voice.id, "engine": voice.engine, "speaker": voice.speaker, "split": voice.split}
    return named | {"clips": len(own), "minutes": _minutes(own), "licence": voice.licence}


def _splits_table(rows: Sequence[Row]) -> str:
    channels = sorted({channel for row in rows for channel in row["channels"]})
    table: list[list[object]] = [["split", "clips", "minutes", "sentences", "speakers", *channels]]
    for row in rows:
        cells = [row["split"], row["clips"], f"{row['minutes']:.1f}", row["sentences"], row["speakers"]]
        table.append([*cells, *(row["channels"].get(channel, 0) for channel in channels)])
    return markdown_table(table)


def _terms_table(rows: Sequence[Row]) -> str:
    if not rows:
        return "The project has no lexicon: no term is counted, and none is said other than it is written."
    table = [["term", "said", *(f"{split} clips (sentences)" for split in DOMAIN)]]
    for row in rows:
        counts = (f"{row['clips'][split]} ({row['sentences'][split]})" for split in DOMAIN)
        table.append([row["term"], row["spoken"] + (" *" if row["spelt"] else ""), *counts])
    return markdown_table(table)


def _lacking(rows: Sequence[Row]) -> str:
    lines = ["Terms with * have no spoken form in the lexicon: listen to a clip, and add `spoken:` where it is wrong."]
    lines = lines if any(row["spelt"] for row in rows) else []
    lacking = [f"{row['term']} ({row['lacks']})" for row in rows if row["lacks"]]
    if lacking:
        lines.append(f"Sentences are missing for {len(lacking)} of {len(rows)} terms: {'; '.join(lacking)}.")
    unheard = [row["term"] for row in rows if not row["sentences"]["validation"] and any(row["sentences"].values())]
    if unheard:
        lines.append(f"Not in validation: {', '.join(unheard)}.")
    return "\n\n".join(lines)


def _voices_table(rows: Sequence[Row]) -> str:
    ordered = sorted(rows, key=lambda row: (*DOMAIN, "final").index(row["split"]))
    cells = [[*(row | {"minutes": f"{row['minutes']:.1f}"}).values()] for row in ordered]
    return markdown_table([["voice", "engine", "speaker", "split", "clips", "minutes", "licence"], *cells])
