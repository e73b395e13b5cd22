"""Ratios of one run on one machine: the field's recipe and ours in turn, round by round, on the same clips and base.

Nothing here is asserted anywhere: machines differ, and a busy one differs from itself. What is kept is the raw JSON,
from which tables and picture are made.
"""

from collections.abc import Callable
from pathlib import Path


def bench(folder: Path, out: Path, model_uri: str, of_theirs: int, say: Callable[[str], object]) -> str:
    """Runs everything, and writes `benchmarks.json`, `.md` and `.png` into `out`; returns the page.

    Of the search's configurations the field's recipe runs `of_theirs`. `say` hears what is measured now.
    """
    # Here, because a cold worker imports this package too, and is to pay for no more than a trial's own modules.
    from wertune.base.config import load_project
    from wertune.bench import memory, page, search, serving, start_up, training, workers
    from wertune.training.prepare import prepare

    prepared = prepare(folder, load_project(folder))
    say("serving …")  # first: what is wrong with the version is said at once
    served = serving.section(folder, model_uri)
    say("training and evaluation …")
    measured = training.sections(prepared)
    say(f"search, {of_theirs} of {search.CONFIGURATIONS} configurations by the field's recipe …")
    measured.append(search.section(prepared, of_theirs))
    for name, part in {"starts": start_up, "memory": memory, "workers": workers}.items():
        say(f"{name} …")
        measured.append(part.section(prepared))
    return page.write(out, page.setting(prepared), [*measured, served])
