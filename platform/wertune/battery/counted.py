"""A scored set as a gate reads it: every utterance's counts."""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from wertune.battery.measures import counts
from wertune.scores.eval_report import SetReport, UtteranceCounts
from wertune.scores.metrics import Scores, Utterance
from wertune.training.prepare import Prepared


def counts_of(
    utterance: Utterance, hypothesis_words: int, as_written: Mapping[str, int | float] | None = None
) -> UtteranceCounts:
    """An utterance as a gate reads it; `as_written` are the fields that `measures.counts` fills."""
    words, text = utterance.words, utterance.hypothesis.encode()
    return UtteranceCounts(
        id=utterance.id,
        speaker=utterance.speaker,
        channel=utterance.channel,
        duration_s=utterance.duration_s,
        reference=utterance.reference,
        hypothesis=utterance.hypothesis,
        words=words.length,
        substitutions=words.substitutions,
        deletions=words.deletions,
        insertions=words.insertions,
        characters=utterance.characters.length,
        character_errors=utterance.characters.errors,
        lexicon_words=utterance.lexicon_words.length,
        lexicon_errors=utterance.lexicon_words.errors,
        terms={term: (c.hits, c.misses, c.false_alarms) for term, c in utterance.terms.items()},
        hypothesis_words=hypothesis_words,
        compression_ratio=len(text) / len(zlib.compress(text)),
        **(as_written or {}),
    )


def set_report(
    prepared: Prepared, scores: Scores, digest: str, entities: Sequence[Sequence[str]] | None = None
) -> SetReport:
    """A scored set, its clips named by manifest line or by number, never by a folder of this machine.

    `entities` are those of each clip; where they are not given, the numbers in its reference.
    """
    rows = []
    for i, utterance in enumerate(scores.utterances):
        as_written = counts(
            utterance.reference,
            utterance.hypothesis,
            utterance.duration_s,
            entities[i] if entities else None,
            prepared.normalise,
            prepared.lexicon.written,
            prepared.finder,
        )
        row = counts_of(utterance, len(prepared.normalise(utterance.hypothesis).split()), as_written)
        rows.append(row.model_copy(update={"id": Path(row.id).name}))
    return SetReport(digest=digest, utterances=tuple(rows))
