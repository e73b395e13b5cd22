"""Everything that a command needs of a project before it trains or scores: checked data, base weights, features."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from wertune.base.config import ContextConfig, ProjectConfig, TrialConfig
from wertune.base.errors import BaseModelError, ManifestError
from wertune.base.files import Fetch, cache_root
from wertune.base.kept import Kept
from wertune.base.machine import require_engine
from wertune.base.text import Lexicon, Normalise, TermFinder, label_text, load_lexicon, normaliser
from wertune.data.long_form import unlisted, whole_recordings
from wertune.data.manifest import (
    FINAL_SPLIT,
    LONG_SPLIT,
    Dataset,
    Looked,
    Recording,
    load_dataset,
    manifests_of,
    row_faults,
)
from wertune.training.limits import Limits, check_limits, limits_of, needs_of
from wertune.whisper.base_model import BaseModel, resolve_base_model
from wertune.whisper.hugging_face import END, knows_languages, read_json

if TYPE_CHECKING:  # what takes seconds to import, and `validate` does without
    from tokenizers import Tokenizer

    from wertune.scores.metrics import Scores
    from wertune.training.batches import TrainingData
    from wertune.training.workers import Workers
    from wertune.whisper.model import Whisper
    from wertune.whisper.transcription import EvaluationSet

BASELINES = "baseline"  # a folder of a project
LANGUAGE_REMEDY = "take a base that does, such as packaged:whisper-base, or leave such rows out"


@dataclass(frozen=True)
class Prepared:
    """A project whose parts were all found and checked; small enough to be sent to a worker.

    Its paths are of the driver's disk: on another node, `prepared_here` gives one with that node's (shipping.py).
    """

    project: ProjectConfig
    lexicon: Lexicon
    base: BaseModel
    dataset: Dataset
    fetch: Fetch | None = None
    limits: Limits | None = None  # of a text's tokens, as the transcripts have them
    baselines: Path | None = None  # where the base's texts lie with the project, for everyone who clones it

    @property
    def normalise(self) -> Normalise:
        return normaliser(self.project.language)

    @property
    def finder(self) -> TermFinder:
        return _finder(self.lexicon.written, self.project.language)

    def whisper(self, quantization: str) -> "Whisper":
        """The untouched base."""
        return _load(*self._base(quantization))

    @contextmanager
    def resident_whisper(self, quantization: str) -> Iterator["Whisper"]:
        """The untouched base, loaded once in this process for all of its trials; adapters go when the block ends."""
        from wertune.whisper.adapter import remove_lora

        whisper = _resident(*self._base(quantization))
        try:
            yield whisper
        finally:
            remove_lora(whisper)

    def _base(self, quantization: str) -> tuple[Path, str, str, tuple[str, ...]]:
        return self.base.path, self.project.language, quantization, self.lexicon.written

    def score(self, recordings: Sequence[Recording], texts: Sequence[str]) -> "Scores":
        """`texts[i]` as the transcript of recording i."""
        from wertune.scores.metrics import score
        from wertune.whisper.transcription import clips_of

        return score(clips_of(recordings), texts, self.normalise, self.finder)

    def evaluation_set(
        self, split: str, context: ContextConfig, mel_bins: int, workers: "Workers | None" = None
    ) -> "EvaluationSet":
        """The split's recordings and features, from this node's cache; each of `workers` works a part of them out."""
        from wertune.whisper.features import FeatureCache
        from wertune.whisper.transcription import EvaluationSet

        recordings = self.dataset[split]
        if not recordings:
            return EvaluationSet([], [])
        cache = FeatureCache(features_folder(), self.fetch)
        if workers and workers.size > 1 and not all(workers.each(lambda: cache.has(recordings, context, mel_bins))):
            cache.work_out(recordings, context, mel_bins, workers.across)
        return EvaluationSet(recordings, cache.load(recordings, context, mel_bins))

    def training_data(self, context: ContextConfig, mel_bins: int, workers: "Workers | None" = None) -> "TrainingData":
        """What a trial reads; all of its `workers` ask for it at once."""
        from wertune.training.batches import TrainingData
        from wertune.whisper.features import FeatureCache

        return TrainingData(
            train=self.dataset["train"],
            replay=self.dataset["replay"],
            validation=self.evaluation_set("validation", context, mel_bins, workers),
            retention=self.evaluation_set("retention_validation", context, mel_bins, workers),
            normalise=self.normalise,
            finder=self.finder,
            cache=FeatureCache(features_folder(), self.fetch),
        )


def features_folder() -> Path:
    """Where this node keeps features."""
    return cache_root() / "features"


def _load(path: Path, language: str, quantization: str, terms: tuple[str, ...]) -> "Whisper":
    from wertune.whisper.model import load_whisper

    return load_whisper(path, language, quantization, terms=terms)


_resident = lru_cache(maxsize=1)(_load)


@lru_cache(maxsize=1)
def _finder(terms: tuple[str, ...], language: str) -> TermFinder:
    return TermFinder(terms, normaliser(language))


def prepare(
    folder: Path,
    project: ProjectConfig,
    manifests: Mapping[str, Path] | None = None,
    drawn: Sequence[TrialConfig] = (),
    final: bool = False,
) -> Prepared:
    """Checks the project's data and trials, also those that a search may have `drawn`, and finds its base model.

    With `manifests` only these are checked: nothing is to be trained. The `final` set is read where it is asked for.

    Raises ConfigError, ManifestError or BaseModelError; nothing is trained or logged before all of it holds.
    """
    require_engine(project.serving.engine)
    lexicon = load_lexicon(folder / project.lexicon if project.lexicon else None)
    source = project.base_model
    base = resolve_base_model(source.source, revision=source.revision, expected_digest=source.digest)
    tokens_of = _token_counter(base.path, project.language)
    with closing(Kept(cache_root())) as kept:
        dataset = load_dataset(
            manifests or manifests_of(project.data, folder.resolve(), final),
            project.data,
            partial(normaliser(project.language).known, kept=kept),
            tokens_of,
            folder.resolve(),
            kept,
        ).spoken_in(project.language)
    if told := unlisted(whole_recordings(dataset[LONG_SPLIT])):
        dataset = replace(dataset, notes=(*dataset.notes, told))
    _check_languages(base, dataset)
    around = tokens_of("") - 1  # the prompt; a text's end is written with it
    # The final set says nothing of how anything is set, nor do segments that are heard in a whole recording.
    apart = (FINAL_SPLIT, LONG_SPLIT)
    chosen_by = chain(*(rows for split, rows in dataset.splits.items() if split not in apart))
    needs = needs_of(chosen_by, lambda text: tokens_of(text) - around)
    limits = limits_of(needs)
    project = project.model_copy(update={"trial": limits.fill(project.trial)})
    for trial in (project.trial, *map(limits.fill, drawn)):
        check_limits(trial.decode, needs)
        if manifests is None:
            trial.lora.check_begins_within(base.encoder_layers)
    shared = folder.resolve() / BASELINES
    return Prepared(project, lexicon, base, dataset, limits=limits, baselines=shared if shared.is_dir() else None)


def _check_languages(base: BaseModel, dataset: Dataset) -> None:
    """ManifestError where a row is in a language that the base has no token for."""
    first: dict[str, str] = {}
    for recording in chain(*dataset.splits.values()):
        first.setdefault(recording.language, recording.place)
    faults = [f"{first[code]}: {wrong}" for code in sorted(first) if code and (wrong := _wrong_language(base, code))]
    if faults:
        raise ManifestError("\n".join([*faults, LANGUAGE_REMEDY]))


def _wrong_language(base: BaseModel, language: str) -> str:
    """What is wrong with a row's language; empty where the base knows it."""
    tokenizer = _tokenizer(base.path)
    multilingual = _knows_languages(base.path, tokenizer)
    known = tokenizer.token_to_id(f"<|{language}|>") is not None if multilingual else language == "en"
    return "" if known else f"language is {language}, which {base.spec} does not know"


def unusable_rows(manifest: Path, folder: Path, project: ProjectConfig) -> Looked:
    """The rows of a manifest that `validate` would refuse, whatever split they went to, and how long all last.

    The base model is looked for where a row names its language, or a text is so long that its tokens must be counted.
    """
    source = project.base_model

    @cache
    def base() -> BaseModel:
        return resolve_base_model(source.source, revision=source.revision, expected_digest=source.digest)

    @cache
    def wrong_language(language: str) -> str:
        wrong = _wrong_language(base(), language)
        return f"{wrong}; {LANGUAGE_REMEDY}" if wrong else ""

    def count(text: str) -> int:
        return _token_counter(base().path, project.language)(text)

    with closing(Kept(cache_root())) as kept:
        normalise = partial(normaliser(project.language).known, kept=kept)
        return row_faults(manifest, project.data, normalise, count, folder.resolve(), kept, wrong_language)


def _token_counter(folder: Path, language: str) -> Callable[[str], int]:
    """How many tokens a text has as a label (wording.py), the prompt and the end around it."""
    try:
        tokenizer = _tokenizer(folder)
    except Exception as error:  # tokenizers and JSON of another shape each raise their own kinds
        raise BaseModelError(f"{folder} holds no tokenizer of Whisper: {error}; download the model again") from error
    around = 5 if _knows_languages(folder, tokenizer) else 3  # start, language, task, no timestamps, end
    return lambda text: around + len(tokenizer.encode(label_text(text, language), add_special_tokens=False).ids)


def _knows_languages(folder: Path, tokenizer: "Tokenizer") -> bool:
    place = folder / "generation_config.json"
    said = read_json(place).get("is_multilingual") if place.is_file() else None
    try:
        return knows_languages(said, tokenizer.token_to_id(END))
    except BaseModelError as error:
        raise BaseModelError(f"{folder}: {error}") from None


@lru_cache(maxsize=1)
def _tokenizer(folder: Path) -> "Tokenizer":
    """As transformers reads it: its own class would import torch, which takes seconds."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    if (folder / "tokenizer.json").is_file():
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    else:
        tokenizer = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.no_truncation()
    return tokenizer
