"""What a project's YAML files may say: frozen pydantic models, loaded once at the command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from wertune.base.errors import ConfigError
from wertune.base.faults import NAME, describe


class Frozen(BaseModel):
    """Immutable; an unknown key is an error instead of a silent default, and so is a NaN or infinite number."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class Draw(Frozen):
    """An augmentation's chance and the range from which its strength is drawn uniformly."""

    probability: float = Field(0.0, ge=0, le=1, description="how many of the clips get it: 0.3 is three in ten")
    low: float = Field(description="least strength")
    high: float = Field(description="greatest strength")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low is {self.low}, but must be <= high ({self.high}); swap them")
        return self


class AugmentConfig(Frozen):
    """Augmentation of the training split; waveform first, then SpecAugment on the log-mel features."""

    variants: int = Field(
        4, ge=1, description="ways in which a clip's waveform is augmented; kept on disk, and taken in turn"
    )
    speed_factor: Draw = Field(Draw(probability=0.3, low=0.9, high=1.1), description="faster or slower, pitch included")
    pitch_semitones: Draw = Field(Draw(probability=0.0, low=-2.0, high=2.0), description="another pitch at equal speed")
    noise_snr_db: Draw = Field(Draw(probability=0.3, low=10.0, high=30.0), description="noise so far below the speech")
    gain_db: Draw = Field(Draw(probability=0.3, low=-8.0, high=4.0), description="louder or quieter")
    band_limit_hz: Draw = Field(Draw(probability=0.1, low=3000.0, high=4000.0), description="dull, as on the telephone")
    time_masks: int = Field(1, ge=0, le=10, description="stretches of time that are blanked out in each clip")
    time_mask_frames: int = Field(20, ge=0, le=200, description="longest time mask; a frame is 10 ms")
    frequency_masks: int = Field(1, ge=0, le=10, description="bands of mel bins that are blanked out in each clip")
    frequency_mask_bins: int = Field(12, ge=0, le=40, description="widest mask; Whisper has 80 mel bins")
    waveform_seed: int | None = Field(
        None, ge=0, lt=2**62, description="of what is drawn for waveforms; the trial's own where it is not given"
    )


# Whisper's linear layers, by the names that transformers gives them.
Layer = Literal["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


class LoraConfig(Frozen):
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685) as PEFT takes them."""

    r: int = Field(16, ge=1, le=256, description="rank: how much an adapter can learn, and its size")
    alpha: float = Field(32.0, gt=0, description="what an adapter adds is multiplied by alpha / r")
    dropout: float = Field(0.05, ge=0, lt=1, description="share of an adapter's inputs that a step leaves out")
    target_modules: tuple[Layer, ...] = Field(
        ("q_proj", "v_proj"),
        min_length=1,
        description="linear layers that get adapters: q_proj, k_proj, v_proj, out_proj, fc1, fc2",
    )
    scope: Literal["encoder", "decoder", "both"] = Field("both", description="the half of Whisper that gets adapters")
    first_encoder_layer: int = Field(0, ge=0, description="layers of the encoder below it carry no adapters")
    strength: float = Field(
        1.0, gt=0, le=1, description="what is scored, kept and served is the base and this much of the adapter"
    )
    rslora: bool = Field(False, description="alpha / sqrt(r) instead of alpha / r (arXiv:2312.03732)")
    dora: bool = Field(
        False, description="lengths of weights are learnt too (arXiv:2402.09353); not on 8 bits on a CPU"
    )

    @field_validator("target_modules", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """`q_proj,v_proj` is short for a list: a search's choices are strings."""
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    def check_begins_within(self, encoder_layers: int) -> None:
        """ConfigError where the adapters would begin above an encoder of so many layers."""
        first = self.first_encoder_layer
        if self.scope != "decoder" and first >= encoder_layers:
            problem = f"lora.first_encoder_layer is {first}, but the encoder has layers 0 to {encoder_layers - 1}"
            raise ConfigError(f"{problem}; lower it, or set lora.scope: decoder")


class ContextConfig(Frozen):
    """How many encoder positions a clip gets: duration_s x 50 + margin, rounded up, at most Whisper's 1500."""

    short: bool = Field(True, description="false pads every clip to 30 s, as Whisper was trained")
    margin_positions: int = Field(32, ge=0, le=1500, description="silence behind a clip; a position is 20 ms")
    multiple: int = Field(16, ge=1, le=512, description="positions are rounded up to a multiple of it")


class DecodeConfig(Frozen):
    """Greedy or beam search, the same in validation, test and serving."""

    num_beams: int = Field(1, ge=1, le=16, description="texts that are followed at once; 1: greedy")
    term_boost: float = Field(
        0.0, ge=0, description="added to the log-probability of each token of a lexicon's term; 0: off"
    )
    boost_beyond_certainty: float = Field(
        1.0, ge=0, description="a term's token gains what it lacks to certainty and this, but no more than term_boost"
    )
    boost_floor: float | None = Field(
        -1.0, le=0, description="a boosted text of a lower mean log-probability is written without a boost; null: never"
    )
    max_new_tokens: int | None = Field(
        None, ge=1, le=448, description="of one clip at most; where not given, what the transcripts need, at least 224"
    )
    tokens_per_second: float | None = Field(
        None,
        gt=0,
        description="caps a clip's tokens at 8 + this x duration_s: what loops ends; where not given, what the "
        "transcripts need in their script, at least 10",
    )
    loop_guard: bool = Field(
        True, description="nothing but digits and letters is said over and over; what loops all the same, written again"
    )
    no_repeat_ngram: int = Field(
        0, ge=0, description="so many tokens in a row stand in a text but once: a number is not read back; 0: off"
    )
    may_be_empty: bool = Field(
        True, description="no text for a clip without words; Whisper's own decoding always writes some"
    )
    batch_size: int = Field(16, ge=1, description="clips that are transcribed at once, at most")
    batch_seconds: float = Field(120.0, gt=0, description="of audio at once, padding included; memory grows with it")


def stored_decode(values: Mapping[str, Any]) -> DecodeConfig:
    """What a version was stored with; one of before a setting was there decodes as it did then."""
    before = {"loop_guard": False, "no_repeat_ngram": 6, "boost_floor": None}
    before["boost_beyond_certainty"] = values.get("term_boost", 0.0)
    return DecodeConfig.model_validate(before | dict(values))


Engine = Literal["torch", "ctranslate2"]


class ServingConfig(Frozen):
    """What serves a version, and what one request to it may ask; stored with every version."""

    engine: Engine = Field(
        "torch",
        description="ctranslate2: on the CPU, in its own int8, faster, terms boosted among finished texts only",
    )
    max_batch: int = Field(64, ge=1, description="rows")
    max_bytes: int = Field(64 * 2**20, ge=1, description="of one recording as a file: half an hour of 16 kHz wav")
    max_duration_s: float = Field(1800.0, gt=0, description="of one recording")
    max_total_duration_s: float = Field(3600.0, gt=0, description="of all recordings of a request")
    longest_piece_s: float | None = Field(
        None,
        ge=5,
        le=28,
        description="what is longer is cut at pauses into pieces of at most so much; where it is not given, as long as "
        "199 of 200 clips that a version learned from: of much longer ones it may write the first sentence alone",
    )
    max_request_bytes: int = Field(
        96 * 2**20, ge=1, description="of a request's body over HTTP: the largest recording in base64, and a little"
    )
    max_waiting: int = Field(
        128, ge=1, description="requests over HTTP that wait or are answered at once; others are told to come again"
    )
    max_rate_hz: int = Field(96_000, ge=16_000, description="bounds what a small file can grow to when it is decoded")
    max_answer_s: float = Field(
        50.0, gt=0, description="over HTTP, waiting for other requests included; MLflow's own limit is 60"
    )
    formats: tuple[Literal["wav", "flac", "ogg", "mp3"], ...] = Field(
        ("wav", "flac", "ogg", "mp3"), min_length=1, description="what a recording may be sent as"
    )


class TrainConfig(Frozen):
    """The epoch loop: AdamW, linear warm-up, cosine decay."""

    epochs: int = Field(4, ge=1, description="at most; ASHA ends most trials earlier")
    batch_size: int = Field(16, ge=1, description="clips of a step")
    accumulation_steps: int = Field(
        1, ge=1, description="batches that share one update: larger batches in little memory"
    )
    learning_rate: float = Field(1e-3, gt=0, lt=1, description="of an adapter's A, once the rate has risen")
    learning_rate_ratio: float = Field(
        1.0, ge=1, le=64, description="the rate of an adapter's B over that of its A (LoRA+, arXiv:2402.12354)"
    )
    weight_decay: float = Field(0.01, ge=0, description="as AdamW applies it")
    warmup_share: float = Field(0.1, ge=0, lt=1, description="share of all steps with a rising rate")
    max_grad_norm: float = Field(1.0, gt=0, description="longer gradients are shortened to it")
    gradient_checkpointing: bool = Field(
        False, description="less than half of the memory for a third more products: for the largest bases"
    )
    ema_decay: float = Field(
        0.99,
        ge=0,
        lt=1,
        description="of the adapter's moving average over steps, which is scored and kept; 0: off",
    )
    clips_per_epoch: int | None = Field(None, ge=1, description="domain clips of an epoch; all where it is not given")
    nonspeech_ratio: float = Field(
        0.1, ge=0, le=1, description="clips without a word, to be transcribed as nothing, for each domain clip"
    )
    replay_ratio: float = Field(0.3, ge=0, le=4, description="replay clips for each domain clip of an epoch")
    joined_ratio: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the clips with words that are heard in windows of several, joined by pauses",
    )
    window_s: float = Field(30.0, ge=2, le=30, description="the longest window")
    timestamps_ratio: float = Field(
        0.5, ge=0, le=1, description="share of the windows in which the times of their clips are learnt, too"
    )
    previous_text_ratio: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the windows before which the text that is said before them is given as prompt",
    )
    evaluation_beams: int | None = Field(
        None, ge=1, le=16, description="of the evaluation after each epoch; those of `decode` where it is not given"
    )
    evaluate_every_epochs: int = Field(
        1, ge=1, description="from one scored epoch, whose state and adapter are kept, to the next; the last is scored"
    )


class TrialConfig(Frozen):
    """Everything that one trial may vary; a search key is a path in here, such as `lora.r`."""

    seed: int = Field(0, ge=0, lt=2**62, description="of everything that is drawn: weights, order, augmentation")
    quantization: Literal["int8", "nf4", "none"] = Field("int8", description="how the frozen base is stored")
    lora: LoraConfig = LoraConfig()
    train: TrainConfig = TrainConfig()
    augment: AugmentConfig = AugmentConfig()
    context: ContextConfig = ContextConfig()
    decode: DecodeConfig = DecodeConfig()


class DataConfig(Frozen):
    """The manifests, relative to the project's folder, and what is asked of their rows."""

    train: Path = Field(description="what adapters learn from")
    validation: Path = Field(description="what the search compares trials by")
    test: Path = Field(description="what the gates judge by: other speakers and sentences than the two above")
    replay: Path | None = Field(None, description="everyday speech that is trained on beside the domain")
    retention_validation: Path | None = Field(None, description="everyday speech: the price of forgetting in a search")
    retention_test: Path | None = Field(None, description="everyday speech that the gates judge forgetting by")
    long: Path | None = Field(
        None, description="whole recordings with their segments, whose times are the truth: evaluate measures them"
    )
    final: Path | None = Field(
        None, description="what evaluate --final alone opens, once a release: engines or people heard nowhere else"
    )
    battery: str | None = Field(
        None,
        description="ordinary speech to measure versions on: shipped is the platform's own, else a folder of yours",
    )
    audio_root: Path | None = Field(
        None, description="a folder outside the project's that rows may name files in; links are followed first"
    )
    on_bad_row: Literal["stop", "skip"] = Field("stop", description="skip: goes on without the rows that break a rule")
    disjoint_speakers: bool = Field(True, description="no speaker of test or validation may be heard in training")
    min_duration_s: float = Field(0.2, gt=0, description="of a row, or of a segment of one")
    max_duration_s: float = Field(
        30.0, gt=0, le=30.0, description="of a row, or of a segment of one; Whisper hears no more at once"
    )


class RetentionConfig(Frozen):
    """The price of forgetting: validation WER grows by `penalty` x what retention WER rises above the margin."""

    margin_wer: float = Field(0.01, ge=0, le=1, description="0.01 is one point")
    penalty: float = Field(2.0, ge=0, description="points of validation WER for a point above the margin")


class BaseModelConfig(Frozen):
    """`source` is a Hub id, a Hugging Face folder, a CTranslate2 folder, or packaged:whisper-tiny.en / -base."""

    source: str = Field(
        min_length=1, description="a Hub id, a Hugging Face or CTranslate2 folder, packaged:whisper-tiny.en or -base"
    )
    revision: str | None = Field(None, description="commit, tag or branch of a Hub id")
    digest: str | None = Field(None, description="sha256:… of the weights; a mismatch stops the run")


class CardConfig(Frozen):
    """What the card of every version says that no measurement knows."""

    about: str = Field("", description="one sentence on the domain")
    data_licence: str = Field("", description="of the recordings and transcripts")
    base_licence: str = Field("", description="of the base model's weights")
    limits: tuple[str, ...] = Field((), description="what the version is not good for, a sentence each")


# Whisper's hundred languages; those before large-v3 lack yue.
_LANGUAGES = """
    af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha haw he hi hr ht hu hy
    id is it ja jw ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne nl nn no oc pa pl ps pt ro ru
    sa sd si sk sl sn so sq sr su sv sw ta te tg th tk tl tr tt uk ur uz vi yi yo yue zh
"""
LANGUAGES = tuple(_LANGUAGES.split())


class ProjectConfig(Frozen):
    """`project.yaml`: one domain."""

    name: str = Field(pattern=NAME, description="also the registered model's name")
    language: str = Field(
        "en", description="as Whisper names it: en, zh, ms, ta, …", json_schema_extra={"enum": [*LANGUAGES]}
    )
    base_model: BaseModelConfig
    lexicon: Path | None = Field(None, description="the domain's terms; none: no term is boosted or counted")
    data: DataConfig
    retention: RetentionConfig = RetentionConfig()
    trial: TrialConfig = TrialConfig()
    serving: ServingConfig = ServingConfig()
    card: CardConfig = CardConfig()

    @field_validator("language")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in LANGUAGES:
            raise ValueError(f"must be one of Whisper's: {', '.join(LANGUAGES)}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _short_base_model(cls, values: Any) -> Any:
        """`base_model: openai/whisper-base` is short for `base_model: {source: openai/whisper-base}`."""
        if isinstance(values, dict) and isinstance(values.get("base_model"), str):
            return {**values, "base_model": {"source": values["base_model"]}}
        return values


Model = TypeVar("Model", bound=BaseModel)
_KINDS: dict[type, str] = {list: "a list", str: "a text"}


class _Loader(yaml.SafeLoader):
    """Notes each key that a mapping has twice, of which YAML would silently take the last."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.twice: list[str] = []

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        first: dict[tuple[str, Any], int] = {}
        for key, _ in node.value:
            line, name = key.start_mark.line + 1, (key.tag, key.value)
            if isinstance(key, yaml.ScalarNode) and name in first:
                self.twice.append(f"{line}: {key.value} stands in line {first[name]} already; remove one of the two")
            elif isinstance(key, yaml.ScalarNode):
                first[name] = line
        return node


DAY_S, MOST_WORKERS = 86400.0, 64


class TrialPlaces(Frozen):
    """What each trial gets of a machine or a cluster."""

    gpus_per_trial: Annotated[float, Field(ge=0, le=MOST_WORKERS)] | Literal["auto"] = Field(
        "auto",
        description="auto: one for each worker; 0 without GPUs; 2 and more: as many workers, a GPU each; 0.25: four "
        "trials share one",
    )
    cpus_per_trial: int = Field(1, ge=1, description="cores of each worker of a trial, each with one thread of work")
    workers_per_trial: int = Field(
        1, ge=1, le=MOST_WORKERS, description="processes that train one trial together, each with a part of its batches"
    )
    worker_timeout_s: float = Field(
        1500.0,  # longer than a search waits for Optuna's database to come back, the first worker of each trial with it
        gt=0,
        le=DAY_S,
        description="so long workers wait for each other; then one is silent, and others take their places",
    )

    @model_validator(mode="after")
    def _workers_have_whole_gpus(self) -> Self:
        gpus, workers = self.gpus_per_trial, self.workers_per_trial
        if gpus == "auto" or not gpus:
            return self
        if gpus > 1 and not gpus.is_integer():
            raise ValueError(
                f"gpus_per_trial is {gpus:g}, but above one it must be whole: each worker has a GPU of its own"
            )
        if workers > 1 and workers != gpus:
            found = f"workers_per_trial is {workers} and gpus_per_trial is {gpus:g}"
            raise ValueError(f"{found}, but each worker has a GPU of its own; set gpus_per_trial: {workers}")
        return self

    @property
    def workers(self) -> int:
        """Processes of a trial."""
        return (
            self.workers_per_trial
            if self.gpus_per_trial == "auto"
            else max(self.workers_per_trial, int(self.gpus_per_trial))
        )


def load_yaml(path: Path, model: type[Model]) -> Model:
    """The file as a `model`; a ConfigError names the file and lists all faults at once."""
    return parse(model, read_yaml(path), place=str(path))


def read_yaml(path: Path) -> dict[str, Any]:
    """The file's mapping; a missing file, bad YAML or another kind of document is a ConfigError."""
    try:
        document, twice = _load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        project = path.name == "project.yaml"
        remedy = "give the folder of a project, such as projects/sg_gov" if project else "write it, or mend the path"
        raise ConfigError(f"{path} does not exist; {remedy}") from None
    # PyYAML lets a date such as 2024-13-01 end in a plain ValueError, and deep nesting in a RecursionError.
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not readable YAML: {error}") from None
    if document is None:
        raise ConfigError(f"{path} is empty, but must hold a mapping of keys to values; write them, or mend the path")
    if not isinstance(document, dict):
        found = _KINDS.get(type(document), type(document).__name__)
        raise ConfigError(f"{path} holds {found}, but must hold a mapping of keys to values, such as `name: my-domain`")
    if twice:
        raise ConfigError("\n".join(f"{path}:{fault}" for fault in twice))
    return document


def _load(text: str) -> tuple[Any, list[str]]:
    """The document, and the keys that stand in it twice, each behind its line."""
    loader = _Loader(text)
    try:
        return loader.get_single_data(), loader.twice
    finally:
        loader.dispose()


def parse(model: type[Model], values: Any, place: str) -> Model:
    """`values` as a `model`, or a ConfigError with every fault: place, key, value, rule."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(faults_of(error, place)) from None


def faults_of(error: ValidationError, place: str) -> str:
    """Every fault, a line each: place, key, value, rule."""
    return "\n".join(f"{place}: {describe(fault)}" for fault in error.errors())


def with_overrides(config: Model, overrides: dict[str, Any], place: str) -> Model:
    """A new config with dotted keys such as `lora.r` replaced and everything checked again."""
    values = config.model_dump()
    for key, value in overrides.items():
        *parents, last = key.split(".")
        section: Any = values
        for parent in parents:
            section = section.get(parent) if isinstance(section, dict) else None
        if not isinstance(section, dict) or last not in section:
            known = ", ".join(sorted(flatten(config.model_dump())))
            raise ConfigError(f"{place}: {key} is not a key of the configuration; known keys: {known}")
        section[last] = value
    return parse(type(config), values, place)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def load_project(folder: Path) -> ProjectConfig:
    """`project.yaml` of the folder; a lexicon or manifest that is not there is found when it is read."""
    return load_yaml(folder / "project.yaml", ProjectConfig)


def policy_path(name: str) -> Path:
    """Where the gates of the project of that name look for its limits."""
    return Path("registry/policies") / f"{name}.yaml"
