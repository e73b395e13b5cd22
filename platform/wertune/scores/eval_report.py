"""What an evaluation found, as counts: JSON that a gate reads without knowing how the model was made."""

import hashlib
from typing import Any, Self

from pydantic import Field, model_validator

from wertune.base.config import Frozen
from wertune.base.contract import ARTEFACT_SET

# 1: no counts of texts as they are written, of entities, false terms and skipped speech
# 2: no words that are skipped, no errors of borders, nothing of exports
SCHEMA_VERSION = 3

_SINCE_2 = {"formatted_words", "formatted_errors", "entities", "entity_errors", "false_terms", "skipped_s"}
_SINCE_3 = {"skipped_words", "border_errors_s"}


class UtteranceCounts(Frozen):
    """One clip's edits; `lexicon_…` are those on words of the lexicon (B-WER), the rest is U-WER."""

    id: str
    speaker: str = ""
    channel: str = ""
    language: str = Field("", description="empty: the project's")
    duration_s: float = Field(ge=0)
    reference: str
    hypothesis: str
    words: int = Field(ge=0, description="words of the normalised reference")
    substitutions: int = Field(ge=0)
    deletions: int = Field(ge=0)
    insertions: int = Field(ge=0)
    characters: int = Field(ge=0)
    character_errors: int = Field(ge=0)
    lexicon_words: int = Field(ge=0)
    lexicon_errors: int = Field(ge=0)
    terms: dict[str, tuple[int, int, int]] = Field(description="hits, misses and false alarms of each written term")
    hypothesis_words: int = Field(ge=0)
    compression_ratio: float = Field(ge=0, description="bytes of the text over its bytes compressed by zlib")
    formatted_words: int = Field(0, ge=0, description="words of the reference as it is written, not normalised")
    formatted_errors: int = Field(0, ge=0, description="edits of them: case, punctuation and form of numbers count")
    entities: int = Field(0, ge=0, description="amounts, dates, numbers and codes that are said")
    entity_errors: int = Field(0, ge=0, description="of those, written otherwise or not at all")
    false_terms: int = Field(0, ge=0, description="lexicon terms written that nobody said, acronyms by their case")
    skipped_s: float = Field(0.0, ge=0, description="seconds of speech of which nothing was written")
    skipped_words: int = Field(0, ge=0, description="words left out three and more in a row")
    border_errors_s: tuple[float, ...] = Field(
        (), description="in a long recording, how far its start and end are from the nearest written; none: no times"
    )

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @model_validator(mode="after")
    def _parts_within_the_whole(self) -> Self:
        if self.lexicon_words > self.words or self.lexicon_errors > self.errors:
            raise ValueError(f"utterance {self.id}: lexicon words and errors must be a part of all words and errors")
        return self


class SetReport(Frozen):
    """One evaluation set; `digest` is that of its audio and texts."""

    digest: str
    utterances: tuple[UtteranceCounts, ...]

    @property
    def wer(self) -> float:
        """Corpus WER; where nothing is said, 1 as soon as a word is written."""
        errors, words = sum(u.errors for u in self.utterances), sum(u.words for u in self.utterances)
        return errors / words if words else float(errors > 0)


class Cost(Frozen):
    """What serving takes; the real-time factors are of one run on one machine."""

    trainable_parameters: int = Field(ge=0)
    trainable_percent: float = Field(ge=0)
    adapter_mb: float = Field(ge=0)
    peak_memory_mb: float = Field(ge=0)
    real_time_factor: float = Field(ge=0, description="seconds of work for a second of speech")
    baseline_real_time_factor: float = Field(ge=0)


class ExportedLong(Frozen):
    """What a plain library writes of long recordings from the version's exported folder, nothing else of it."""

    library: str = Field(description="with its version, and the form of the folder")
    recordings: int = Field(ge=1)
    words: int = Field(ge=1)
    errors: int = Field(ge=0)
    deletions: int = Field(ge=0)
    skipped_words: int = Field(ge=0, description="of the deletions, three and more in a row")
    clips_errors: int | None = Field(None, ge=0, description="in the same words, each clip written alone")

    @property
    def wer(self) -> float:
        return self.errors / self.words


class Provenance(Frozen):
    """Where the adapter and its numbers come from; an empty value is an unknown one, which a gate may refuse."""

    git_commit: str = ""
    data_digests: dict[str, str] = Field(default_factory=dict)
    base_model: str = ""
    base_model_digest: str = ""
    adapter_digest: str = ""
    seed: int | None = None
    normaliser: str = ""
    decode: dict[str, float | int | str | None] = Field(default_factory=dict)
    context: dict[str, float | int | str | bool] = Field(default_factory=dict)
    engine: str = Field("torch", description="what transcribed; torch alone was there before it was recorded")


class EvalReport(Frozen):
    """A registered version measured in a clean process, beside the untouched base on the same clips."""

    schema_version: int = SCHEMA_VERSION
    model: str
    version: str
    created: str = Field(description="UTC, ISO 8601")
    sets: dict[str, SetReport] = Field(description=f"test, retention_test, silence, noise, short, {ARTEFACT_SET}, …")
    baseline: dict[str, SetReport]
    training_terms: dict[str, int] = Field(description="how often each term of the lexicon was said in training")
    leakage: tuple[str, ...] = Field(
        (), description="clips of the test set that training had, their texts or recordings"
    )
    cost: Cost
    provenance: Provenance
    exports: dict[str, ExportedLong] = Field(
        default_factory=dict, description="long recordings by a plain library, as `wertune export` last measured them"
    )

    @property
    def digest(self) -> str:
        """SHA-256 of the report's canonical JSON: what a decision and an approval are bound to.

        A report from before engines were recorded keeps the digest that it had.
        """
        later: dict[str, Any] = {"provenance": {"engine"}} if self.provenance.engine == "torch" else {}
        since = (_SINCE_2 if self.schema_version < 2 else set()) | (_SINCE_3 if self.schema_version < 3 else set())
        if since:
            sets = {"__all__": {"utterances": {"__all__": since}}}
            later |= {"sets": sets, "baseline": sets, "exports": True}
        return hashlib.sha256(self.model_dump_json(exclude=later).encode()).hexdigest()
