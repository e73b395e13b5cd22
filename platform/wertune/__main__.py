"""The command line: which commands there are, and where. Each parses, loads the configuration, calls one function."""

import logging
import os
import warnings

import click

from wertune.base.cli import EXIT_STATUS, Tool, run_tool

COMMANDS = {
    "align": "wertune.commands.align:align",
    "battery": "wertune.commands.data:battery",
    "bench": "wertune.commands.score:bench",
    "doctor": "wertune.commands.doctor:doctor",
    "evaluate": "wertune.commands.score:evaluate",
    "export": "wertune.commands.listen:export",
    "import": "wertune.commands.data:import_",
    "init": "wertune.commands.project:init",
    "page": "wertune.commands.listen:page",
    "schema": "wertune.commands.project:schema",
    "split": "wertune.commands.data:split_",
    "synthesize": "wertune.commands.data:synthesize",
    "train": "wertune.commands.tune:train",
    "transcribe": "wertune.commands.listen:transcribe",
    "tune": "wertune.commands.tune:tune",
    "validate": "wertune.commands.data:validate",
}
DEPRECATED = "`is_gradient_checkpointing` is deprecated"
EPILOG = f"Versions are moved by another tool: `wergate promote | approve | rollback | history | check`. {EXIT_STATUS}"


@click.group(cls=Tool, places=COMMANDS, context_settings={"show_default": True}, epilog=EPILOG)
def cli() -> None:
    """Adapts Whisper to a domain: LoRA on an 8-bit base, searched, tracked and gated."""


def main() -> None:
    """Runs `wertune`."""
    _quiet_libraries()
    run_tool(cli, "wertune", _end_run)


def _end_run(reason: str) -> None:
    from wertune.tracking.opening import fail_project_run

    fail_project_run(reason)


def _quiet_libraries() -> None:
    """What bitsandbytes says on import of kernels that it does without, tokenizers of processes that fork, one library
    of a name that another one still uses, and MLflow of uv.lock and of an example that a version with audio has not.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    logging.getLogger("mlflow.utils.uv_utils").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*An input example was not provided")
    warnings.filterwarnings("ignore", message=DEPRECATED)
    os.environ.setdefault("PYTHONWARNINGS", f"ignore:{DEPRECATED}")  # in the processes that this one starts, too
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


if __name__ == "__main__":
    main()
