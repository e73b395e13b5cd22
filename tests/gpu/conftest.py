"""A small Whisper of random weights, so that a GPU needs nothing but the libraries that train."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from wertune.bench.gpu.base import Size, write_base
from wertune.data.audio import SAMPLE_RATE_HZ, audio_digest, load_audio
from wertune.data.manifest import Recording
from wertune.data.rows import Row


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of 64 with the vocabulary of Whisper."""
    return write_base(tmp_path_factory.mktemp("base") / "small", Size("small", 64, 2, 2), torch.device("cpu"))


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    """Six clips of noise with a text each."""
    folder, made = tmp_path_factory.mktemp("clips"), []
    for number in range(6):
        path = folder / f"{number}.wav"
        duration_s = 0.5 + number / 10
        noise = np.random.default_rng(number).standard_normal(round(duration_s * SAMPLE_RATE_HZ))
        soundfile.write(path, (0.1 * noise).clip(-1, 1), SAMPLE_RATE_HZ)
        row = Row(audio_filepath=path.name, text=f"clip {number}", speaker="a")
        made.append(Recording(row, f"clips.jsonl:{number + 1}", path, duration_s, audio_digest(load_audio(path))))
    return made
