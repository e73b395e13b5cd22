"""The main job, in reading order: checked project, baseline, search, final evaluation, registered version, gates."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import optuna

from wergate.commands.promote import promote
from wergate.errors import Refused
from wergate.gates.decision import Decision
from wergate.gates.gate import GateResult
from wergate.gates.policy import Policy
from wergate.registry.open import evaluate_in_a_clean_process, open_registry
from wergate.trail.reports import last_decision, page_of, require_report
from wertune.base import contract
from wertune.base.config import ProjectConfig, TrialConfig, TrialPlaces, flatten
from wertune.base.errors import WertuneError
from wertune.base.steps import Steps, heard_by
from wertune.data.manifest import count_rows, manifests_of
from wertune.jobs.ablation import Ablation, what_it_brings
from wertune.jobs.logged import ABLATION, Results, describe, log_comparison, log_error_report, log_figures, log_search
from wertune.jobs.opening import start_experiment
from wertune.jobs.trials import BestTrial, best_trial, downloaded_adapter
from wertune.jobs.writers import writers
from wertune.reports.card_text import write_card
from wertune.reports.model_card import CardOf, model_card
from wertune.reports.time_spent import Phases
from wertune.scores.comparison import Comparison, comparisons_of, logged_metrics
from wertune.scores.metrics import Scores
from wertune.search.search_space import SearchConfig
from wertune.serving.pyfunc import log_and_register
from wertune.tracking.journal_writer import held
from wertune.tracking.runs import RunRef
from wertune.tracking.versions import VersionCard, version_of
from wertune.training.baseline import EVALUATION_SPLITS, Transcribe, Way, baseline_scores, baseline_texts, told, ways_of
from wertune.training.objective import Objective
from wertune.training.prepare import Prepared
from wertune.training.trial import BEST_METRICS, SIZE_METRICS, run_trial, short_names
from wertune.whisper.adapter import load_adapter
from wertune.whisper.footprint import quantization_advice
from wertune.whisper.model import Whisper

FINAL_SPLITS = ("test", "retention_test")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Task:
    """A project that is to have an adapter: its folder, its configuration, and the policy that the adapter is to pass.

    The policy is read before anything is trained: nothing is worse than a night without a verdict.
    """

    folder: Path
    project: ProjectConfig
    policy: Policy
    say: Say
    phases: Phases = field(default_factory=Phases)


@dataclass(frozen=True)
class Search:
    """How its best adapter is looked for, with Optuna's database; `resume` is the run of a search to go on with.

    `folder` holds a folder a search; `command` tells what to type to go on with a run's search.
    """

    config: SearchConfig
    storage_url: str
    folder: Path
    ray_address: str | None
    resume: str
    command: Callable[[str], str]


@dataclass(frozen=True)
class Team:
    """Several workers that train one trial together: what each gets, and whose cluster they are in."""

    places: TrialPlaces
    ray_address: str | None


@dataclass(frozen=True)
class Verdict:
    """Where the gates let the version go, and what the steps after that hang on.

    `registrar` may not approve where `forbid_self`; `page` is the run and the path of the decision as a page.
    """

    stage: str
    text: str
    registrar: str = ""
    forbid_self: bool = True
    refusals: tuple[GateResult, ...] = ()
    page: tuple[str, str] | None = None


@dataclass(frozen=True)
class Registered:
    """What a job comes to: the best adapter as a version of the project's model, and what the gates say of it."""

    run: RunRef
    prepared: Prepared
    best: BestTrial
    results: Results
    version: str
    verdict: Verdict


def tune(task: Task, search: Search) -> Registered:
    """Many trials, the best of which is registered."""
    # Here, since `train` needs no Ray.
    from wertune.jobs.soup import restarted
    from wertune.jobs.strengths import at_the_best_strength
    from wertune.search.driver import SearchInterrupted, cluster, transcribe_across
    from wertune.search.driver import search as search_trials

    config, epochs = search.config, task.project.trial.train.epochs
    with _opened(task, search) as (run, prepared, study):
        advise(prepared, task.say)
        go_on = f"go on with: {search.command(run.run_id)}"
        task.say(f"should this be interrupted or killed, {go_on}")
        with cluster(search.ray_address, config):
            task.say("scoring the untouched base on validation, test and retention …")
            task.phases.begin("the base's scores")
            baseline = score_baseline(run, prepared, transcribe_across(config, task.say))
            each = f", each of {config.workers} workers" if config.workers > 1 else ""
            task.phases.begin("search")
            task.say(f"searching: {config.trials} trials of at most {epochs} epochs{each} …")
            objective = objective_of(prepared, baseline)
            try:
                search_trials(prepared, config, objective, run, study, search.folder / run.run_id)
            except SearchInterrupted:
                task.say(f"interrupted; {go_on}")
                raise
            log_search(run)
            best = best_trial(run, prepared)
            if config.restarts:
                task.phases.begin("runs of the mean")
                best = restarted(run, prepared, config, best, objective, task.say)
            if config.strengths:
                task.phases.begin("strengths")
                best = at_the_best_strength(run, prepared, config, best, objective, task.say)
        return finish(task, run, prepared, baseline, best, study, config.asha.rungs(epochs))


def train(task: Task, team: Team | None = None) -> Registered:
    """One trial, which is registered; in this process, or by a `team`."""
    with ExitStack() as until_the_end:
        with _reading(task):
            opened = start_experiment(task.folder, task.project, f"train {task.project.name}")
            run, prepared = until_the_end.enter_context(opened)
        advise(prepared, task.say)
        task.phases.begin("scores of the base, and training")
        baseline = _trained_by_team(task, team, run, prepared) if team else _trained_here(task, run, prepared)
        return finish(task, run, prepared, baseline, BestTrial(run, "this one", prepared.project.trial))


def _trained_here(task: Task, run: RunRef, prepared: Prepared) -> dict[str, Scores]:
    """What the base was worth before."""
    task.say("scoring the untouched base …")
    baseline = score_baseline(run, prepared, told(task.say))
    objective = objective_of(prepared, baseline)
    run_trial(prepared.project.trial, prepared, objective, run, lambda result: task.say(result.line()))
    return baseline


def _trained_by_team(task: Task, team: Team, run: RunRef, prepared: Prepared) -> dict[str, Scores]:
    """The same."""
    from wertune.search.driver import cluster, train_across, transcribe_across

    with cluster(team.ray_address, team.places):
        task.say("scoring the untouched base …")
        baseline = score_baseline(run, prepared, transcribe_across(team.places, task.say))
        objective, trial = objective_of(prepared, baseline), (prepared.project.trial, run)
        task.say(f"training with {team.places.workers} workers …")
        for _, fault in train_across(prepared, team.places, [trial], objective, task.say, task.say):
            if fault:
                raise fault
    return baseline


@contextmanager
def _opened(task: Task, search: Search) -> Iterator[tuple[RunRef, Prepared, optuna.Study]]:
    """The search's run, its checked project and its study, this process's alone until the end.

    What a `resume` is refused for leaves the run as it was.
    """
    from wertune.search.study import open_study

    title = f"tune {task.project.name}"
    with ExitStack() as until_the_end, ExitStack() as running:  # the run is closed before its folder is let go
        study = None
        if search.resume:
            study = open_study(search.resume, search.storage_url, search.config, resume=True)
            until_the_end.enter_context(held(search.folder / search.resume))
        with _reading(task):
            opened = start_experiment(task.folder, task.project, title, search.resume, search.config)
            run, prepared = running.enter_context(opened)
        if study is None:
            until_the_end.enter_context(held(search.folder / run.run_id))
            study = open_study(run.run_id, search.storage_url, search.config, resume=False)
        yield run, prepared, study


def _reading(task: Task) -> AbstractContextManager[None]:
    """Says that the data are read, and how far that is where it takes long: with every recording the first time."""
    task.say("checking data and base model …")
    task.phases.begin("checks")
    rows = sum(count_rows(manifest) for manifest in manifests_of(task.project.data, task.folder).values())
    return heard_by(Steps("recordings read", rows, task.say))


def advise(prepared: Prepared, say: Say) -> None:
    """A word of what in rows is not read, and where 8 bits save next to nothing; the job goes on as asked for."""
    for note in prepared.dataset.notes:
        say(note)
    if advice := quantization_advice(prepared.base.path, prepared.project.trial.quantization):
        say(advice)


def score_baseline(run: RunRef, prepared: Prepared, transcribe: Transcribe | None = None) -> dict[str, Scores]:
    """The untouched base on every evaluation split, logged as `baseline_…`.

    What else it writes on validation, for the table of what each part brings, is written and kept by the way.
    """
    others = dict.fromkeys(EVALUATION_SPLITS, (Way.PLAIN,))
    baseline_texts(prepared, others | {"validation": ways_of(prepared)}, transcribe)
    scores = baseline_scores(prepared)
    for split, values in scores.items():
        run.metrics(logged_metrics(values, split, "baseline_"))
    return scores


def objective_of(prepared: Prepared, baseline: Mapping[str, Scores]) -> Objective:
    """Validation WER with the project's price of forgetting."""
    settings = prepared.project.retention
    reference = baseline["retention_validation"].wer if "retention_validation" in baseline else 0.0
    return Objective(reference, settings.margin_wer, settings.penalty)


def finish(
    task: Task,
    run: RunRef,
    prepared: Prepared,
    baseline: Mapping[str, Scores],
    best: BestTrial,
    study: optuna.Study | None = None,
    rungs: Sequence[int] = (),
) -> Registered:
    """From the best adapter to the gates' verdict; the tables of results are said at the end."""
    say, name = task.say, prepared.project.name
    say(f"best: {best.name}; registering it …")
    task.phases.begin("the version as it serves")
    version = register(run, prepared, best)
    say(f"registered as models:/{name}/{version}; evaluating it as it serves, beside the untouched base …")
    try:
        comparisons = evaluated(task, run, prepared, version)
        task.phases.begin("what each part brings")
        results = Results(comparisons, what_brings_it(run, prepared, best, comparisons, say))
        task.phases.begin("gates")
        verdict = to_staging(task, version)
    except (KeyboardInterrupt, WertuneError) as stopped:
        command = f"python -m wergate promote --project {task.folder} --version {version} --to Staging"
        what = "interrupted" if isinstance(stopped, KeyboardInterrupt) else "it failed"
        say(f"{what} before the verdict; models:/{name}/{version} stays, go on with: {command}")
        raise
    log_figures(run, prepared, comparisons, task.phases, study, rungs)
    link = f"[{best.name}]({best.run.ui_path})"
    say("\n" + describe(run, prepared, results, link, version, verdict.text) + "\n")
    say(f"models:/{name}/{version}, stage {verdict.stage}: {verdict.text}\n")
    return Registered(run, prepared, best, results, version, verdict)


def register(run: RunRef, prepared: Prepared, best: BestTrial) -> str:
    """The best adapter as a version of the project's model, logged to the active run, with its card.

    A new one, unless a job of before, interrupted, has registered it.
    """
    name, config = prepared.project.name, best.config
    best_values = short_names(flatten(config.model_dump(mode="json")))
    run.last_params({f"best_{key}": value for key, value in best_values.items()})
    with downloaded_adapter(best.run) as adapter:
        adapter_mb = sum(file.stat().st_size for file in adapter.rglob("*") if file.is_file()) / 2**20
        run.metrics(best.run.latest(SIZE_METRICS + BEST_METRICS) | {contract.ADAPTER_MB: adapter_mb})
        version = version_of(run, name, best.run)
        if not version:
            version = log_and_register(name, adapter, config, prepared)
            run.client.set_model_version_tag(name, version, contract.ADAPTER_RUN_TAG, best.run.run_id)
    sizes = run.latest((contract.TRAINABLE_PARAMETERS, contract.TRAINABLE_PERCENT, contract.ADAPTER_MB))
    write_card(VersionCard(run.client, name, version), model_card(CardOf(version, run.run_id, config, sizes), prepared))
    return version


def evaluated(task: Task, run: RunRef, prepared: Prepared, version: str) -> dict[str, Comparison]:
    """The version as it serves, on test and retention test beside the base: what the gates judge, and all tables show.

    Measured in a process of its own, as anybody's version is, and logged to this run as well.
    """
    model = open_registry(prepared.project.name, task.say).model
    found = require_report(model, model.look().version(version), task.policy, evaluate_in_a_clean_process(task.folder))
    known = comparisons_of(found.report, found.report.baseline)
    comparisons = {split: known[split] for split in FINAL_SPLITS if split in known}
    for split, both in comparisons.items():
        log_comparison(run, split, both)
    facts = f"models:/{prepared.project.name}/{version} as it serves, on {prepared.base.spec}"
    log_error_report(run, prepared, comparisons, facts)
    return comparisons


def what_brings_it(
    run: RunRef, prepared: Prepared, best: BestTrial, comparisons: Mapping[str, Comparison], say: Say
) -> Ablation | None:
    """What each part brings, logged: the adapter, loaded back from its artifact, on validation; None without terms."""
    if not prepared.lexicon.terms:
        return None
    config = best.config
    clips = (2 if config.decode.term_boost else 1) * len(prepared.dataset["validation"])
    with ExitStack() as until_the_end:
        adapter = until_the_end.enter_context(downloaded_adapter(best.run))
        load = partial(_with_adapter, prepared, config, adapter)
        whisper = load()
        hands = until_the_end.enter_context(writers(whisper, load, clips))
        with heard_by(Steps("what each part brings", clips, say)):
            found = what_it_brings(prepared, config, whisper, hands, comparisons)
    run.table(found.artifact(), ABLATION)
    run.metrics(found.metrics())
    return found


def _with_adapter(prepared: Prepared, config: TrialConfig, adapter: Path) -> Whisper:
    return load_adapter(prepared.whisper(config.quantization), adapter)


def _evaluate_others(folder: Path, version: str) -> Callable[[str, str], None]:
    """Versions that the gates compare with; a report of this one was just made, on whatever test set there is."""
    evaluate = evaluate_in_a_clean_process(folder)

    def other(name: str, number: str) -> None:
        if number != version:
            evaluate(name, number)

    return other


def to_staging(task: Task, version: str) -> Verdict:
    """Moves the version to Staging if every gate passes; a refusal is a result, and the search was not in vain."""
    registry = open_registry(task.project.name, task.say)
    try:
        outcome = promote(registry, version, "Staging", task.policy, _evaluate_others(task.folder, version))
    except Refused as refused:
        task.say("\n" + refused.table)
        gates = Decision.model_validate(refused.decision).refusals if refused.decision else ()
        place = last_decision(registry.model.look().version(version), "staging")
        return Verdict(
            "None",
            str(refused),
            refusals=gates,
            page=(place.run_id, page_of(place)) if place else None,
        )
    registrar = registry.model.registrar(registry.model.look().version(version))
    return Verdict("Staging", outcome.text, registrar, task.policy.approval.forbid_self)
