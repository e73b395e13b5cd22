"""A version's card kept in step with the registry: what the gates saw, what Production was then, where it stands."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from wergate.errors import RegistryError
from wergate.trail.records import Record, trail
from wergate.trail.registered_model import FoundReport, RegisteredModel, Snapshot, Version
from wertune.base.contract import AGAINST_PRODUCTION, RESULTS, STANDING, VERDICT_PREFIX
from wertune.reports.card_text import INTERVALS, renewed
from wertune.scores.comparison import by_language_table, comparisons_of, markdown_table, summary_rows

DIGEST_CHARACTERS = 16


@dataclass(frozen=True)
class Cards:
    """The cards of a model's versions; `say` hears of one that could not be written."""

    model: RegisteredModel
    say: Callable[[str], None]

    def tell_verdict(self, found: FoundReport, champion: FoundReport | None) -> None:
        """Results as served, and against the version in Production, as the decision that was just recorded saw them."""
        snapshot = self.model.look()
        version = snapshot.version(found.report.version)
        told = {RESULTS: _results(found), AGAINST_PRODUCTION: _against(found, champion)}
        self._renew(version, told | {STANDING: standing(snapshot, version)})

    def tell_standing(self, numbers: Iterable[str] = ()) -> None:
        """Where these versions stand now, or all of them, and how they came there."""
        snapshot = self.model.look()
        for version in (snapshot.versions[n] for n in numbers or snapshot.versions if n in snapshot.versions):
            self._renew(version, {STANDING: standing(snapshot, version)})

    def _renew(self, version: Version, sections: Mapping[str, str]) -> None:
        """Writes what has changed; a store that does not take it stops no move, for a card decides nothing."""
        try:
            card = self.model.read_card(version)
            if card and (new := renewed(card, sections)) != card:
                self.model.write_card(version, new)
        except RegistryError as error:
            self.say(f"the card of version {version.number} is behind: {error}; run check with repair=true")


def standing(snapshot: Snapshot, version: Version) -> str:
    """The stage, what the gates last said, and every move that touched the version: from the registry alone."""
    lines = [f"Stage: {version.stage}."]
    for transition in ("staging", "production"):
        if said := version.tags.get(VERDICT_PREFIX + transition):
            lines.append(f"- The gates of {transition.title()}: {said}.")
    lines += [_line(record, version.number) for record in trail(snapshot.tags) if _touches(record, version.number)]
    return lines[0] + "\n\n" + "\n".join(lines[1:] or ["No gate has judged it."])


def _touches(record: Record, number: str) -> bool:
    return record.move.kind != "repair" and number in (record.move.version, record.move.replaced)


def _line(record: Record, number: str) -> str:
    move, when = record.move, f"- {record.at:%Y-%m-%d %H:%M} UTC:"
    if move.version != number:
        return f"{when} gave its place in {move.to_stage} to version {move.version}."
    how = "rolled back" if move.kind == "rollback" else "promoted"
    place = f", in place of version {move.replaced}" if move.replaced else ""
    approver = f", approved by {move.approval.approver}" if move.approval else ""
    return f"{when} {how} to {move.to_stage} by {move.who}{approver}{place}."


def _results(found: FoundReport) -> str:
    report = found.report
    facts = (
        f"Measured as it serves in {report.provenance.engine} at {report.created}, on the test set "
        f"`{report.sets['test'].digest[:DIGEST_CHARACTERS]}…` (run `{found.run_id}`):"
    )
    comparisons = comparisons_of(report, report.baseline)
    table = markdown_table(summary_rows(comparisons, after=f"version {report.version}"))
    languages = by_language_table(comparisons)
    base = "The base is scored at 30 s of context, without the boost of terms."
    others = ", in other languages after theirs" if languages else ""
    counted = f"{INTERVALS} Errors are counted after {report.provenance.normaliser}{others}. {base}"
    return "\n\n".join(part for part in (facts, table, languages, counted) if part)


def _against(found: FoundReport, champion: FoundReport | None) -> str:
    if champion is None:
        return "No other version was in Production when the gates judged this one."
    ours, theirs = found.report, champion.report
    title = f"Version {theirs.version} was in Production when the gates judged this one"
    both = comparisons_of(ours, theirs.sets)
    shown = {split: each for split, each in both.items() if split in ours.baseline}
    if not shown:
        return f"{title}; its report is of other test sets, and cannot stand beside this one's."
    rows = summary_rows(shown, f"version {theirs.version}", f"version {ours.version}")
    return f"{title}; both as they serve, on the same clips:\n\n{markdown_table(rows)}"
