"""What each part brings: base and adapter, without and with boosted terms, beside what costs no training."""

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from wertune.base.config import DecodeConfig, TrialConfig
from wertune.base.text import Normalise, TermFinder
from wertune.jobs.measures import score_split
from wertune.jobs.writers import Writers
from wertune.scores.aliases import alias_writer
from wertune.scores.comparison import Comparison, markdown_table, metric_name
from wertune.scores.metrics import Clip, Scores, score
from wertune.serving.served import longest_piece_s
from wertune.training.baseline import Way, baseline_texts, ways_of
from wertune.training.prepare import Prepared
from wertune.whisper.model import Whisper

WIDTH = 120  # of the lines below the table
LOGGED = ("wer", "term_recall", "term_precision")
# What the rows are called, and begin with as metrics; those of the base begin as its other metrics do.
_BASE = {
    Way.PLAIN: ("baseline", "untouched base"),
    Way.BOOSTED: ("baseline_boosted", "base, terms boosted"),
    Way.PROMPTED: ("baseline_prompted", "base, glossary as prompt"),
}


@dataclass(frozen=True)
class Row:
    """One way to get the texts, scored by split."""

    key: str
    name: str
    scores: Mapping[str, Scores]


@dataclass(frozen=True)
class Ablation:
    """The rows, and what must be known to read them."""

    rows: tuple[Row, ...]
    caption: str

    def table(self) -> str:
        """For the terminal and MLflow's description, the caption below."""
        splits = self._splits()
        header = ["", *(title for split in splits for title in (f"{split} WER", "term recall", "false terms"))]
        cells = [[row.name, *(cell for split in splits for cell in _cells(row.scores.get(split)))] for row in self.rows]
        return f"{markdown_table([header, *cells])}\n\n{textwrap.fill(self.caption, WIDTH)}"

    def artifact(self) -> list[dict[str, Any]]:
        """As an MLflow table; what was not scored is empty there."""
        table = []
        for row in self.rows:
            figures: dict[str, Any] = {"written_by": row.name}
            for split in self._splits():
                scores = row.scores.get(split)
                figures |= {f"{split}_{name}": scores.summary()[name] if scores else None for name in LOGGED}
                figures[f"{split}_false_terms"] = scores.terms.false_alarms if scores else None
            table.append(figures)
        return table

    def metrics(self) -> dict[str, float]:
        """`baseline_boosted_val_wer`, … of the rows that are not logged as scores of base and adapter anyway."""
        return {
            f"{row.key}_{metric_name(split, name)}": float(scores.summary()[name])
            for row in self.rows
            for split, scores in row.scores.items()
            for name in LOGGED
            if row.key != "baseline" and (split == "validation" or row.key.endswith("_aliased"))
        }

    def _splits(self) -> list[str]:
        return list(dict.fromkeys(split for row in self.rows for split in row.scores))


def what_it_brings(
    prepared: Prepared, config: TrialConfig, whisper: Whisper, writers: Writers, comparisons: Mapping[str, Comparison]
) -> Ablation:
    """The adapter on validation as it is served and without its boost, beside all ways of the base."""
    texts = baseline_texts(prepared, {"validation": ways_of(prepared)})["validation"]
    base = {way: prepared.score(prepared.dataset["validation"], written) for way, written in texts.items()}

    def on_validation(decode: DecodeConfig) -> Scores:
        return score_split(prepared, writers, "validation", config.context, decode, longest_piece_s(prepared))

    unboosted = config.decode.model_copy(update={"term_boost": 0.0})
    served, test = on_validation(config.decode), comparisons.get("test")
    write = alias_writer(prepared.lexicon)
    return ablation(
        base,
        on_validation(unboosted) if config.decode.term_boost else None,
        served,
        test,
        lambda scores: rewritten(scores, write, prepared.normalise, prepared.finder),
        caption(served, test.after if test else None, len(whisper.wording.glossary.terms), len(prepared.lexicon.terms)),
    )


def ablation(
    base: Mapping[Way, Scores],
    unboosted: Scores | None,
    served: Scores,
    test: Comparison | None,
    aliased: Callable[[Scores], Scores],
    caption: str,
) -> Ablation:
    """The rows of validation's scores, beside test's where those are known without writing more texts.

    `unboosted` is the adapter without the boost that it is served with, None where it has none; `aliased` scores texts
    anew with aliases written as their terms.
    """
    before, after = ({"test": test.before}, {"test": test.after}) if test else ({}, {})
    plain, as_served = {"validation": base[Way.PLAIN]} | before, {"validation": served} | after
    anew = [{split: aliased(scores) for split, scores in each.items()} for each in (plain, as_served)]
    rows = [Row(*_BASE[way], plain if way is Way.PLAIN else {"validation": scores}) for way, scores in base.items()]
    rows.append(Row("baseline_aliased", "base, aliases as their terms", anew[0]))
    if unboosted:
        rows.append(Row("adapter", "adapter", {"validation": unboosted}))
        rows.append(Row("adapter_boosted", "adapter, terms boosted: as it is served", as_served))
    else:
        rows.append(Row("adapter", "adapter: as it is served", as_served))
    rows.append(Row("adapter_aliased", "as it is served, aliases as their terms", anew[1]))
    return Ablation(tuple(rows), caption)


def rewritten(scores: Scores, write: Callable[[str], str], normalise: Normalise, finder: TermFinder) -> Scores:
    """The scores of the same clips with each transcript as `write` writes it."""
    clips = (Clip(u.id, u.reference, u.speaker, u.channel, u.duration_s, u.language) for u in scores.utterances)
    return score(clips, (write(u.hypothesis) for u in scores.utterances), normalise, finder)


def caption(validation: Scores, test: Scores | None, glossary: int, terms: int) -> str:
    """What the table rests on, and what flatters it; `glossary` of the `terms` fit Whisper's prompt."""
    sets = {"Validation": validation} | ({"Test": test} if test else {})
    held = "all" if glossary == terms else f"the first {glossary} of"
    cut = "" if glossary == terms else ": Whisper's prompt holds no more"
    return " ".join(
        [
            *(f"{name}: {_extent(scores)}." for name, scores in sets.items()),
            "By validation the epoch was chosen, and in a search the trial: that flatters the adapter there.",
            "False terms: written where nobody said them. The base hears 30 s of context.",
            f"Glossary: {held} {terms} terms{cut}.",
            "Aliases are forms that differ in blanks, dots, hyphens or case, and those of the lexicon; what is served "
            "does not rewrite them.",
        ]
    )


def _extent(scores: Scores) -> str:
    said = scores.terms.hits + scores.terms.misses
    return f"{len(scores.utterances):,} clips, {scores.words.length:,} words, {said:,} terms said"


def _cells(scores: Scores | None) -> list[str]:
    if scores is None:
        return ["–"] * 3
    recall = f"{100 * scores.terms.recall:.2f} %" if scores.terms.said else "–"
    return [f"{100 * scores.wer:.2f} %", recall, str(scores.terms.false_alarms)]
