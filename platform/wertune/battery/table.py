"""Rates of a battery's parts, thin views of their counts, and the table that shows them beside the base's."""

from collections.abc import Mapping

from wertune.base.contract import BATTERY_PREFIX
from wertune.scores.eval_report import SetReport, UtteranceCounts
from wertune.whisper.loops import MAX_COMPRESSION_RATIO

# Of each rate, the part of a thousand or of a hundred that people are shown.
PER_THOUSAND = "false_terms_per_1000"
Rates = Mapping[str, float]


def rates(report: SetReport) -> dict[str, float]:
    """The part's figures: rates of 1, seconds and counts; only what can be told of it."""
    rows, said = report.utterances, sum(u.words for u in report.utterances)
    if not said:
        writing = sum(u.hypothesis_words > 0 for u in rows)
        return {
            "clips": len(rows),
            "made_up_words": sum(u.hypothesis_words for u in rows),
            "written_to": writing / len(rows),
            "loops": sum(map(is_loop, rows)),
        }
    entities = [u for u in rows if u.entities]
    found = {
        "clips": len(rows),
        "words": said,
        "wer": sum(u.errors for u in rows) / said,
        "formatted_wer": sum(u.formatted_errors for u in rows) / sum(u.formatted_words for u in rows),
        "deletion_rate": sum(u.deletions for u in rows) / said,
        "erased": sum(u.words > 0 and not u.hypothesis_words for u in rows) / len(rows),
        PER_THOUSAND: 1000 * sum(u.false_terms for u in rows) / said,
        "loops": sum(map(is_loop, rows)),
        "skipped_s": sum(u.skipped_s for u in rows),
    }
    if entities:
        found["entity_accuracy"] = 1 - sum(u.entity_errors for u in entities) / sum(u.entities for u in entities)
        found["all_right"] = sum(not u.entity_errors for u in entities) / len(entities)
    return found


def is_loop(row: UtteranceCounts) -> bool:
    """Whether the text repeats itself and the reference does not."""
    return row.compression_ratio > MAX_COMPRESSION_RATIO and row.hypothesis_words > row.words


def metrics(sets: Mapping[str, SetReport], prefix: str = "") -> dict[str, float]:
    """Every rate of every part, as a run keeps it: `battery_<part>_<rate>`."""
    parts = {name: rates(report) for name, report in sets.items() if name.startswith(BATTERY_PREFIX)}
    return {
        f"{prefix}battery_{name.removeprefix(BATTERY_PREFIX)}_{rate}": value
        for name, found in parts.items()
        for rate, value in found.items()
    }


def table(sets: Mapping[str, SetReport], baseline: Mapping[str, SetReport]) -> str:
    """Markdown: a row for each part and rate, the base's and the version's."""
    lines = ["| part | clips | measure | base | version |", "|---|---|---|---|---|"]
    for name in sorted(name for name in sets if name.startswith(BATTERY_PREFIX)):
        now, before = rates(sets[name]), rates(baseline[name]) if name in baseline else {}
        part = f"| {name.removeprefix(BATTERY_PREFIX)} | {now['clips']:.0f}"
        for rate in (rate for rate in now if rate not in ("clips", "words")):
            lines.append(f"{part} | {rate} | {_shown(before.get(rate))} | {_shown(now[rate])} |")
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}".rstrip("0").rstrip(".")
