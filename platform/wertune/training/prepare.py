"""Everything that a command needs of a project before it trains or scores: checked data, base weights, features."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from wertune.base.config import ContextConfig, ProjectConfig, TrialConfig
from wertune.base.errors import BaseModelError
from wertune.base.files import Fetch
from wertune.base.text import Lexicon, Normalise, TermFinder, load_lexicon, normaliser
from wertune.data.manifest import Dataset, load_dataset, manifests_of
from wertune.training.batches import TrainingData
from wertune.whisper.base_model import BaseModel, cache_root, resolve_base_model
from wertune.whisper.ctranslate2_engine import require_engine
from wertune.whisper.evaluate import EvaluationSet
from wertune.whisper.features import ClipCache, FeatureCache
from wertune.whisper.model import Whisper, check_has_layers, load_whisper, remove_lora
from wertune.whisper.wording import label_text

BASELINES = "baseline"  # a folder of a project


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
    baselines: Path | None = None  # where the base's texts lie with the project, for everyone who clones it

    @property
    def normalise(self) -> Normalise:
        return normaliser(self.project.language)

    @property
    def finder(self) -> TermFinder:
        return _finder(self.lexicon.written, self.project.language)

    def whisper(self, quantization: str) -> Whisper:
        """The untouched base."""
        return _load(*self._base(quantization))

    @contextmanager
    def resident_whisper(self, quantization: str) -> Iterator[Whisper]:
        """The untouched base, loaded once in this process for all of its trials; adapters go when the block ends."""
        whisper = _resident(*self._base(quantization))
        try:
            yield whisper
        finally:
            remove_lora(whisper)

    def _base(self, quantization: str) -> tuple[Path, str, str, tuple[str, ...]]:
        return self.base.path, self.project.language, quantization, self.lexicon.written

    def evaluation_set(self, split: str, context: ContextConfig, mel_bins: int) -> EvaluationSet:
        """The split's recordings and features, from this node's cache."""
        recordings = self.dataset[split]
        cache = FeatureCache(features_folder(), self.fetch)
        return EvaluationSet(recordings, cache.load(recordings, context, mel_bins) if recordings else [])

    def training_data(self, context: ContextConfig, mel_bins: int) -> TrainingData:
        """What a trial reads."""
        return TrainingData(
            train=self.dataset["train"],
            replay=self.dataset["replay"],
            validation=self.evaluation_set("validation", context, mel_bins),
            retention=self.evaluation_set("retention_validation", context, mel_bins),
            normalise=self.normalise,
            finder=self.finder,
            cache=ClipCache(features_folder(), self.fetch),
        )


def features_folder() -> Path:
    """Where this node keeps features."""
    return cache_root() / "features"


def _load(path: Path, language: str, quantization: str, terms: tuple[str, ...]) -> Whisper:
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
    dataset = load_dataset(
        manifests or manifests_of(project.data, folder.resolve(), final),
        project.data,
        normaliser(project.language),
        _token_counter(base.path, project.language),
        folder.resolve(),
    )
    if manifests is None:
        layers = base.encoder_layers
        for trial in (project.trial, *drawn):
            check_has_layers(trial.lora, layers)
    shared = folder.resolve() / BASELINES
    return Prepared(project, lexicon, base, dataset, baselines=shared if shared.is_dir() else None)


@lru_cache(maxsize=1)
def _token_counter(path: Path, language: str):  # type: ignore[no-untyped-def]
    from transformers import WhisperTokenizerFast

    try:
        tokenizer = WhisperTokenizerFast.from_pretrained(path, local_files_only=True)
    except Exception as error:  # tokenizers and JSON of another shape each raise their own kinds
        raise BaseModelError(f"{path} holds no tokenizer of Whisper: {error}; download the model again") from error
    return lambda text: len(tokenizer(label_text(text, language)).input_ids)
