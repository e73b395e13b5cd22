"""Registers damaged copies of a version, to see which gates refuse them: `damaged_adapters.py models:/sg_gov/1`.

Run it where `projects/` lies, of another project with its folder behind the version, and behind that one damage if it
is to be alone; then promote each of the printed versions to Staging.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import mlflow
import torch
from safetensors.torch import load_file, save_file

from wertune.base.config import load_project
from wertune.jobs.opening import log_inputs
from wertune.serving.pyfunc import log_and_register
from wertune.tracking.opening import open_run
from wertune.training.prepare import prepare

Damage = Callable[[str, torch.Tensor], torch.Tensor]
DAMAGES: dict[str, Damage] = {
    "four times as strong": lambda name, weights: weights * 4 if "lora_B" in name else weights,
    "without effect, as r=0 would be": lambda name, weights: weights * 0 if "lora_B" in name else weights,
    "rows in another order": lambda name, weights: weights.roll(1, 0) if "lora_B" in name else weights,
}


def damage(folder: Path, how: Damage) -> None:
    """Rewrites the adapter's weights in place."""
    file = folder / "adapter_model.safetensors"
    save_file({name: how(name, weights).contiguous() for name, weights in load_file(file).items()}, file)


def main(model_uri: str, folder: str = "projects/sg_gov", only: str = "") -> None:
    """One version for each kind of damage, or for that one."""
    project_folder = Path(folder)
    project = load_project(project_folder)
    for title, how in {only: DAMAGES[only]}.items() if only else DAMAGES.items():
        with open_run(project.name, f"damaged: {title}") as run, tempfile.TemporaryDirectory() as scratch:
            prepared = prepare(project_folder, project)
            log_inputs(run, prepared)
            run.params({"best_seed": project.trial.seed})
            whole = Path(mlflow.artifacts.download_artifacts(artifact_uri=model_uri, dst_path=scratch))
            adapter = next(whole.rglob("adapter_config.json")).parent
            damage(adapter, how)
            print(f"models:/{project.name}/{log_and_register(project.name, adapter, project.trial, prepared)}: {title}")


if __name__ == "__main__":
    main(*sys.argv[1:4])
