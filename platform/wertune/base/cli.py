"""What both command lines share: commands that are imported late, answers as JSON, and the exit status."""

import functools
import gc
import getpass
import json
import logging
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import click

from wertune.base.errors import WertuneError

EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_STATUS = (
    "Exit status: 0 done, 1 refused or a mistake in what was asked for (said in one line on standard error), "
    "2 usage, 130 interrupted, 143 ended by SIGTERM."
)
# What schedulers, containers and `timeout` end a command with, and a terminal that is closed.
ENDING = (signal.SIGTERM, signal.SIGHUP)
LOST_AGAIN_S = 0.1
# Objects between two looks for garbage, 700 in Python's own: libraries make a million that stay as they are imported,
# and looking through them was a fifth of a command's start.
NEW_OBJECTS = 10_000
_ended_by: list[int] = []


class Tool(click.Group):
    """A group whose commands end their help with the exit status; those of `places` are imported when asked for."""

    def __init__(self, *args: Any, places: Mapping[str, str] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._places = dict(places or {})  # name: "module:attribute"

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in order."""
        return sorted({*super().list_commands(ctx), *self._places})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now where it was not yet; None where there is none of that name."""
        command = super().get_command(ctx, cmd_name)
        if command is None and cmd_name in self._places:
            module, _, attribute = self._places[cmd_name].partition(":")
            command = getattr(import_module(module), attribute)
        if command is None:
            return None
        command.epilog = command.epilog or EXIT_STATUS
        # Else click cuts it off after some fifty letters.
        command.short_help = command.short_help or " ".join((command.help or "").split("\n\n")[0].split())
        return command


class NamedPath(click.Path):
    """A path that is not empty: that would be the folder which the command runs in, asked for by nobody."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("it is empty, but must be a path; this folder is '.'", param, ctx)
        return super().convert(value, param, ctx)


def end_as_interrupted() -> None:
    """Lets what ends a command do what Ctrl-C does: runs are closed, what is kept is kept, the way on is said.

    Called again where a library has put its own handler in place. What is ignored (nohup) stays so.
    """

    def end(number: int, frame: FrameType | None) -> None:
        _ended_by.append(number)
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler):  # Ray Tune has one of its own while it runs
            handler(signal.SIGINT, frame)
        else:  # a shell starts its background jobs with SIGINT ignored
            raise KeyboardInterrupt

    def again(lost: "sys.UnraisableHookArgs") -> None:
        """Python drops what is raised while it collects garbage: the signal is sent once more."""
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            sys.__unraisablehook__(lost)
            return
        number = _ended_by[-1] if _ended_by else signal.SIGINT
        threading.Timer(LOST_AGAIN_S, os.kill, (os.getpid(), number)).start()

    if threading.current_thread() is threading.main_thread():  # others may set no handler
        sys.unraisablehook = again
        for each in ENDING:
            if signal.getsignal(each) != signal.SIG_IGN:
                signal.signal(each, end)


def run_tool(tool: Tool, name: str, end_run: Callable[[str], None]) -> None:
    """Runs a command; a user's mistake ends it with a message, and `end_run` the run that `mlflow run` made."""
    gc.set_threshold(NEW_OBJECTS)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # With S3 behind it, MLflow's server would send clients to a store that they have neither account nor path to.
    for direction in ("DOWNLOAD", "UPLOAD"):
        os.environ.setdefault(f"MLFLOW_ENABLE_PROXY_MULTIPART_{direction}", "false")
    # What a connection says of its own end where a signal cuts a query in two; a fault of a database is raised besides.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    _name_user()
    end_as_interrupted()
    try:
        tool.main(standalone_mode=False, prog_name=name)
    except click.ClickException as error:
        _refuse(name, error.format_message(), EXIT_USAGE, end_run)
    except WertuneError as error:
        _refuse(name, str(error), EXIT_REFUSED, end_run)
    except (click.Abort, KeyboardInterrupt):
        if not _ended_by:
            sys.exit(EXIT_INTERRUPTED)
        click.echo(f"{name}: ended by {signal.Signals(_ended_by[0]).name}", err=True)
        sys.exit(128 + _ended_by[0])


def is_activated() -> bool:
    """Whether the shell finds the programs of this Python's environment by their plain names."""
    return sys.prefix in (os.environ.get("VIRTUAL_ENV"), os.environ.get("CONDA_PREFIX"))


def typed(command: str) -> str:
    """The command for a shell of an environment that nobody has activated: what it calls lies beside this Python."""
    if is_activated():
        return command
    return f'PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH" {command}'


def _name_user() -> None:
    """A user of a number alone, as containers have, is named by it: torch's compiler must have a name."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = str(os.getuid())


def _refuse(name: str, reason: str, status: int, end_run: Callable[[str], None]) -> None:
    click.echo(f"{name}: {reason}", err=True)
    if is_mlflow_run():
        end_run(reason)
    sys.exit(status)


def is_mlflow_run() -> bool:
    """Whether `mlflow run` started this process and nobody has taken up its run yet: it names the run."""
    return "MLFLOW_RUN_ID" in os.environ


def print_json(values: Any) -> None:
    """One document, readable."""
    click.echo(json.dumps(values, ensure_ascii=False, indent=1))


def answering(command: Callable[..., Any], as_json: bool) -> Any:
    """What `command()` returns, which is also printed as JSON where asked for; all else then goes to standard error.

    A refusal is a document with `error` and its details, and is raised again.
    """
    if not as_json:
        return command()
    try:
        with redirect_stdout(sys.stderr):
            values = command()
    except WertuneError as error:
        print_json({"error": str(error), **error.details})
        raise
    print_json(values)
    return values


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option --json of a command that returns what a program would want to know."""

    @click.option("--json", "as_json", is_flag=True, help="one JSON document on stdout; text for people on stderr")
    @functools.wraps(command)
    def run(as_json: bool, **values: Any) -> None:
        answering(functools.partial(command, **values), as_json)

    return run
