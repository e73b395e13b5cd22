"""Checks of this machine and of the libraries that compute on it."""

import os
import shutil
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from pathlib import Path

import numpy as np

from wertune.base.errors import AudioError, ConfigError
from wertune.base.files import CACHE_REMEDY, cache_root
from wertune.base.machine import cores, existing, free_disk_mb, ray_folder, require_short_temp
from wertune.commands.doctor import Check, Finding, Site, fail, ok, warn

PYTHONS = ((3, 11), (3, 13))  # as pyproject.toml says
DISK_WANTED_MB = 2048.0  # a converted base, features, and the adapters of a search of tiny or base
TONE_HZ, RATE_HZ, TONE_S = 440, 16_000, 1.0
CONTAINERS = {"wav": ("WAV", "PCM_16"), "flac": ("FLAC", "PCM_16"), "opus": ("OGG", "OPUS"), "mp3": ("MP3", None)}
INT8_ERROR = 0.05  # of a product of normal numbers; 8 bits give one or two hundredths


def python(site: Site) -> Finding:
    """Its version."""
    found = sys.version.split()[0]
    low, high = (".".join(map(str, end)) for end in PYTHONS)
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        return fail("Python", found, f"use Python {low} to {high}; `uv python install {high}` brings one")
    return ok("Python", found)


def torch_pair(site: Site) -> Finding:
    """transformers' Whisper imports torchaudio wherever it is installed, and fails with another build's."""
    name = "torch, torchaudio"
    try:
        pair = {package: version(package) for package in ("torch", "torchaudio")}
    except PackageNotFoundError as error:
        return fail(name, f"{error.name} is not installed", "install both of one version: `make test` or `uv sync`")
    found = " and ".join(pair.values())
    remedy = "install both of one version and from one index: `pip install torch==2.11.0 torchaudio==2.11.0`"
    if len({each.partition("+")[0] for each in pair.values()}) > 1:
        return fail(name, found, remedy)
    try:
        import torchaudio  # noqa: F401
    except (ImportError, OSError) as error:
        return fail(name, f"{found}, but torchaudio cannot be imported: {error}", remedy)
    return ok(name, found)


def device(site: Site) -> Finding:
    """What trains: the GPUs, or the CPU and how it multiplies."""
    import torch

    from wertune.whisper.footprint import PRODUCTS_VARIABLE, dtype_name, product_dtype

    asked = os.environ.get(PRODUCTS_VARIABLE)
    remedy = "unset it where results are to be those of this machine"
    if torch.cuda.is_available():
        gpus = [
            (torch.cuda.get_device_properties(i), torch.device("cuda", i)) for i in range(torch.cuda.device_count())
        ]
        named = (f"{gpu.name} {gpu.total_memory / 2**30:.0f} GB, {dtype_name(product_dtype(i))}" for gpu, i in gpus)
        found = "; ".join(named)
        return warn("device", f"{found} as {PRODUCTS_VARIABLE} asks for", remedy) if asked else ok("device", found)
    if shutil.which("nvidia-smi"):
        driver = "install a torch built for the driver's CUDA (`nvidia-smi` names it), or go on with the CPU"
        return warn("device", f"a GPU's driver is installed, but torch {torch.__version__} finds none", driver)
    if asked:
        return warn("device", f"CPU, {cores()} cores, {asked} as {PRODUCTS_VARIABLE} asks for", remedy)
    if product_dtype(torch.device("cpu")) is torch.bfloat16:
        return ok("device", f"CPU, {cores()} cores, bfloat16 by AVX-512 BF16 or AMX")
    remedy = "nothing needs doing; a CPU with AVX-512 BF16 or AMX is up to four times as fast, a GPU far more"
    return warn("device", f"CPU, {cores()} cores, float32", remedy)


def int8_product(site: Site) -> Finding:
    """A real product in bitsandbytes' 8 bits against the exact one."""
    import bitsandbytes
    import torch

    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    exact = torch.nn.Linear(64, 32, bias=False)
    layer = bitsandbytes.nn.Linear8bitLt(64, 32, bias=False, has_fp16_weights=False)
    layer.load_state_dict(exact.state_dict())
    inputs = torch.randn(8, 64)
    with torch.no_grad():
        expected = exact(inputs)
        error = (layer.to(place)(inputs.to(place)).float().cpu() - expected).norm() / expected.norm()
    found = f"bitsandbytes {bitsandbytes.__version__}, a product on {place.type} within {100 * error:.1f} %"
    if not error < INT8_ERROR:
        remedy = "install bitsandbytes==0.50.2, or search with `--set quantization=none`"
        return fail("8-bit products", found, remedy)
    return ok("8-bit products", found)


def audio(site: Site) -> Finding:
    """A tone written and read in every format that manifests may name."""
    import soundfile

    from wertune.data.audio import load_audio

    tone = 0.5 * np.sin(2 * np.pi * TONE_HZ * np.arange(round(TONE_S * RATE_HZ)) / RATE_HZ)
    broken = []
    for name, (container, subtype) in CONTAINERS.items():
        buffer = BytesIO()
        try:
            soundfile.write(buffer, tone, RATE_HZ, format=container, subtype=subtype)
            samples = load_audio(buffer.getvalue())
        except (AudioError, soundfile.LibsndfileError, ValueError) as error:
            broken.append(f"{name} ({error})")
            continue
        pitch = np.abs(np.fft.rfft(samples, 2 * RATE_HZ)).argmax() / 2
        if abs(pitch - TONE_HZ) > 2:
            broken.append(f"{name} ({pitch:.0f} Hz instead of {TONE_HZ})")
    library = f"libsndfile {soundfile.__libsndfile_version__}"
    if broken:
        remedy = "use the wheel of soundfile (`pip install --force-reinstall soundfile`), or convert to wav"
        return fail("audio", f"{library}: {', '.join(broken)}", remedy)
    return ok("audio", f"{', '.join(CONTAINERS)} by {library}")


def cache(site: Site) -> Finding:
    """Where converted weights and features are kept: writable, and with room."""
    return _room("cache", cache_root(), CACHE_REMEDY)


def working_folder(site: Site) -> Finding:
    """Where a search keeps its state, and MLflow its artifacts by default."""
    return _room("working folder", Path.cwd(), "free some space there, or run from a folder with more")


def sockets(site: Site) -> Finding:
    """A search's own Ray speaks through files whose paths have a limit."""
    try:
        require_short_temp()
    except ConfigError as error:
        problem, _, remedy = str(error).partition("; ")
        return fail("Ray's sockets", problem, remedy)
    return ok("Ray's sockets", str(ray_folder()))


def _room(name: str, folder: Path, remedy: str) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=existing(folder)) as file:
            file.write(b"wertune")
    except OSError as error:
        return fail(name, f"{folder} cannot be written: {error.strerror}", remedy)
    free_mb = free_disk_mb(folder)
    found = f"{folder}, {free_mb / 1024:.1f} GB free"
    return warn(name, found, remedy) if free_mb < DISK_WANTED_MB else ok(name, found)


CHECKS: dict[str, Check] = {
    "Python": python,
    "torch, torchaudio": torch_pair,
    "device": device,
    "8-bit products": int8_product,
    "audio": audio,
    "cache": cache,
    "working folder": working_folder,
    "Ray's sockets": sockets,
}
