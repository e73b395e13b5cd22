"""Versions registered before there were rooms say `from wertune.serve import TranscriptionModel`, and still load."""

import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd

SERVED_MODEL = '''"""What MLflow runs to load the registered model: code, so that nothing is unpickled."""

import mlflow

from wertune.serve import TranscriptionModel

mlflow.models.set_model(TranscriptionModel())
'''


def test_a_version_that_was_registered_before_loads_and_transcribes(served_folder: Path, tmp_path: Path) -> None:
    before = shutil.copytree(served_folder, tmp_path / "before")
    (before / "served_model.py").write_text(SERVED_MODEL, encoding="utf-8")
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    rows = pd.DataFrame({"samples": [noise.tolist()], "rate_hz": [16_000]})
    texts = [mlflow.pyfunc.load_model(str(folder)).predict(rows)["text"].tolist() for folder in (before, served_folder)]
    assert texts[0] == texts[1]
