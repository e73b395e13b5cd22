"""Checks of a project: its base model, the memory of a trial, its checkout, and the voices that speak for it."""

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from wertune.base.config import TrialPlaces, load_project, load_yaml, parse, read_yaml
from wertune.base.errors import BaseModelError, ConfigError, SynthesisError
from wertune.base.machine import free_memory_mb, room_for_trials
from wertune.commands.doctor import Check, Finding, Site, fail, ok, warn

if TYPE_CHECKING:
    from wertune.synthesis.config import SynthesisConfig
    from wertune.whisper.base_model import BaseModel

# A worker with torch, transformers and Ray, and a step of training on tiny or base: measured, rounded up.
PROCESS_MB, STEP_MB = 1000.0, 700.0
GIT_S = 30
CODE = Path(__file__).parent


def base_model(site: Site) -> Finding:
    """Its weights are found, read and, where the project names a digest, trusted."""
    try:
        base = _base(site)
    except (ConfigError, BaseModelError) as error:
        problem, _, remedy = str(error).rpartition("; ")
        return fail("base model", problem or remedy, remedy)
    return ok("base model", f"{base.spec}, {base.digest[:15]}…")


def memory(site: Site) -> Finding:
    """What is free, beside what one trial takes at least; `tune --dry-run` measures it."""
    free_mb = free_memory_mb()
    if free_mb is None:
        return warn("memory", "this system does not say what is free", "watch the first trial")
    needed_mb = PROCESS_MB + STEP_MB + _weights_mb(site)
    found = f"{free_mb / 1024:.1f} GB free, a trial takes about {needed_mb / 1024:.1f} GB"
    if free_mb < needed_mb:
        return fail("memory", found, "close other programs, take a smaller base, or train.gradient_checkpointing: true")
    return ok("memory", found)


def trials(site: Site) -> Finding:
    """How many of them find the places at once on this machine that search.yaml gives each."""
    path = site.project / "search.yaml"
    if not path.exists():
        return ok("trials", "the project has no search.yaml")
    try:
        values = read_yaml(path)  # of which no range or choice is looked at here: that would need Optuna
        places = parse(TrialPlaces, {key: values[key] for key in TrialPlaces.model_fields if key in values}, str(path))
        each = f", each of {places.workers} workers" if places.workers > 1 else ""
        if (site.ray_address or os.environ.get("RAY_ADDRESS", "")) not in ("", "local"):
            return ok("trials", f"as many at once as the cluster has places for{each}")
        import torch

        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return ok("trials", f"room for {int(room_for_trials(places, gpus))} at once{each}")
    except ConfigError as error:
        problem, _, remedy = str(error).rpartition("; ")
        return fail("trials", problem or remedy, remedy)


def _weights_mb(site: Site) -> float:
    """0 where the base is not found: another check says so."""
    import torch

    from wertune.whisper.footprint import footprint, product_dtype

    dtype = product_dtype(torch.device("cpu"))
    try:
        sizes = footprint(_base(site).path, dtype)
    except (ConfigError, BaseModelError):
        return 0.0
    return sizes.plain_mb if load_project(site.project).trial.quantization == "none" else sizes.int8_mb


def checkout(site: Site) -> Finding:
    """MLflow keeps the commit of the code, and the provenance gate asks for it; the project's is for who looks back."""
    try:
        _git(CODE, "rev-parse", "--short", "HEAD")
    except (OSError, subprocess.SubprocessError):
        remedy = "run it from a clone of its repository"
        return warn("git", "the code is no git checkout; the provenance gate will refuse what is trained", remedy)
    try:
        commit = _git(site.project, "rev-parse", "--short", "HEAD")
        changed = _git(site.project, "status", "--porcelain")
    except (OSError, subprocess.SubprocessError):
        remedy = "`git init` there and commit before a search, so that its rows and words can be found again"
        return warn("git", "the project is in no git repository", remedy)
    if changed:
        files = len(changed.splitlines())
        found = f"{commit}, and {files} changed or new files that the commit does not hold"
        return warn("git", found, "commit them first, so that the commit that is logged can be trained again")
    return ok("git", f"{commit}, clean")


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=GIT_S).stdout.strip()


def voices(site: Site) -> Finding:
    """One word by each engine that `synthesize` would take, and speakers enough."""
    from wertune.synthesis.config import SynthesisConfig
    from wertune.synthesis.engines import find_engine

    path = site.project / "synthesis.yaml"
    if not any((site.project / name).exists() for name in (path.name, "sentences.txt", "sentences.jsonl")):
        return ok("speech engines", "not needed: the project has no sentences to speak")
    config = load_yaml(path, SynthesisConfig) if path.exists() else SynthesisConfig()
    first, problems = _cast(config, site)
    for engine, name in sorted(first.items()):
        try:
            find_engine(engine).speak("Hello.", name, 1.0)
        except SynthesisError as error:
            problems.append(str(error))
    if problems:
        found = "; ".join(problem.rpartition("; ")[0] or problem for problem in problems)
        remedies = [problem.rpartition("; ")[2] for problem in problems if "; " in problem]
        remedy = "; ".join(remedies) or "name others as `engines:` in synthesis.yaml"
        return warn("speech engines", found, f"only `synthesize` needs them: {remedy}")
    return ok("speech engines", ", ".join(sorted(first)))


def _cast(config: "SynthesisConfig", site: Site) -> tuple[dict[str, str], list[str]]:
    """A voice of each engine, and what is wrong with those that synthesis.yaml asks for, or with all."""
    from wertune.synthesis.casting import cast_voices
    from wertune.synthesis.engines import ENGINES, offered_voices

    if config.voices:
        return {voice.engine: voice.name for voice in reversed(config.voices) if voice.split != "final"}, []
    language = load_project(site.project).language if (site.project / "project.yaml").exists() else "en"
    offered, absent = offered_voices(config.engines or ENGINES, language)
    problems = [f"{name}: {why}" for name, why in absent.items() if name in config.engines or not offered]
    try:
        cast_voices(offered, config.seed)
    except SynthesisError as error:
        problems.append(str(error))
    return {name: found[0].name for name, found in offered.items()}, problems


def _base(site: Site) -> "BaseModel":
    from wertune.whisper.base_model import resolve_base_model

    source = load_project(site.project).base_model
    return resolve_base_model(source.source, revision=source.revision, expected_digest=source.digest)


CHECKS: dict[str, Check] = {
    "base model": base_model,
    "memory": memory,
    "trials": trials,
    "git": checkout,
    "speech engines": voices,
}
