"""The card of a registered version: what it is, what it was made of, what it can and cannot do, how to use it."""

from collections.abc import Mapping
from dataclasses import dataclass

from wertune.base import contract
from wertune.base.config import TrialConfig
from wertune.base.text import normaliser_version
from wertune.reports.card_text import INTERVALS
from wertune.scores.comparison import Comparison, markdown_table, summary_rows
from wertune.tracking.versions import RegisteredVersion
from wertune.training.prepare import Prepared

_SCOPES = {"both": "encoder and decoder", "encoder": "the encoder", "decoder": "the decoder"}


@dataclass(frozen=True)
class CardOf:
    """What a card tells of, beside the project; `champion` was in Production when this version was registered."""

    version: str
    run_id: str
    config: TrialConfig
    sizes: Mapping[str, float]
    comparisons: Mapping[str, Comparison]
    champion: RegisteredVersion | None


def model_card(of: CardOf, prepared: Prepared) -> str:
    """The card in Markdown, as it stands at registration; wergate renews what its moves change."""
    name, card = prepared.project.name, prepared.project.card
    parts = [
        f"# {name} version {of.version}",
        card.about,
        f"A LoRA adapter on an untouched Whisper for the domain `{name}`, {_languages(prepared)}.",
        f"## {contract.RESULTS}",
        "Measured in torch before it was registered:",
        markdown_table(summary_rows(of.comparisons)),
        _by_language(of.comparisons),
        f"{INTERVALS} Errors are counted after {normaliser_version(prepared.project.language)}"
        f"{', in other languages after theirs' if _others(prepared) else ''}. "
        "The base is scored at 30 s of context, without the boost of terms.",
        f"## {contract.AGAINST_PRODUCTION}",
        _against_champion(of, prepared),
        f"## {contract.STANDING}",
        "Registered; no gate has judged it.",
        "## Limits",
        "\n".join(f"- {limit}" for limit in card.limits)
        or "None are stated: `card.limits` of `project.yaml` is empty.",
        "## How to use it",
        _usage(name, of.version),
        "## What it was made of",
        _facts(of, prepared),
        "## Data",
        _data(prepared),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _others(prepared: Prepared) -> list[str]:
    """The languages that rows name and that are not the project's."""
    named = {recording.language for recordings in prepared.dataset.splits.values() for recording in recordings}
    return sorted(named - {"", prepared.project.language})


def _languages(prepared: Prepared) -> str:
    others = ", ".join(f"`{each}`" for each in _others(prepared))
    return f"language `{prepared.project.language}`" + (f", with clips in {others}" if others else "")


def _by_language(comparisons: Mapping[str, Comparison]) -> str:
    """WER of each language, where there are several."""
    found = {split: both.by("language") for split, both in comparisons.items()}
    rows = [
        [split, row["language"], row["utterances"], f"{row['wer_before']:.2%}", f"{row['wer_after']:.2%}"]
        for split, each in found.items()
        for row in each
        if len(each) > 1
    ]
    return markdown_table([["set", "language", "clips", "WER of the base", "WER"], *rows]) if rows else ""


def _against_champion(of: CardOf, prepared: Prepared) -> str:
    """This version's figures beside those of the one in Production, where both were measured on the same test set."""
    if of.champion is None:
        return "No version was in Production when this one was registered."
    title = f"Version {of.champion.version} was in Production when this one was registered"
    digest = of.champion.dataset_digests.get("test", "")
    if not digest or not prepared.dataset.digest("test").startswith(digest):
        return f"{title}; its figures are of another test set, and cannot stand beside these."
    ours = {key: value for split, both in of.comparisons.items() for key, value in both.metrics(split).items()}
    theirs = of.champion.metrics
    rows = [["", f"version {of.champion.version}", f"version {of.version}", "change"]]
    for key in contract.RESULT_METRICS:
        if key in ours and key in theirs:
            name = key.replace("_", " ").replace("wer", "WER").replace("cer", "CER")
            before, after = 100 * theirs[key], 100 * ours[key]
            rows.append([name, f"{before:.2f} %", f"{after:.2f} %", f"{after - before:+.2f} points"])
    return f"{title}:\n\n{markdown_table(rows)}"


def _usage(name: str, version: str) -> str:
    return f"""```python
import mlflow
model = mlflow.pyfunc.load_model("models:/{name}/{version}")
model.predict([{{"path": "clip.wav"}}])["text"][0]
```

```
mlflow models serve -m models:/{name}/{version} --env-manager local --port 5001
```"""


def _facts(of: CardOf, prepared: Prepared) -> str:
    config, card = of.config, prepared.project.card
    lora = config.lora
    modules = ", ".join(lora.target_modules)
    facts = {
        "base": f"`{prepared.base.spec}`, `{prepared.base.digest}`",
        "licence of the base": card.base_licence or "not stated in `project.yaml`",
        "licence of the data": card.data_licence or "not stated in `project.yaml`",
        "base's weights": config.quantization,
        "LoRA": f"r={lora.r}, alpha={lora.alpha:g}, dropout={lora.dropout:g}, strength={lora.strength:g}, "
        f"on {modules} of {_SCOPES[lora.scope]}"
        + (", DoRA" if lora.dora else "")
        + (", rsLoRA" if lora.rslora else ""),
        "trained": f"{of.sizes.get(contract.TRAINABLE_PARAMETERS, 0):,.0f} parameters, "
        f"{of.sizes.get(contract.TRAINABLE_PERCENT, 0):.2f} % of all; "
        f"an adapter of {of.sizes.get(contract.ADAPTER_MB, 0):.1f} MB",
        "training": f"at most {config.train.epochs} epochs in batches of {config.train.batch_size}, "
        f"learning rate {config.train.learning_rate:.2g}, seed {config.seed}",
        "decoding": f"{config.decode.num_beams} beams, terms boosted by {config.decode.term_boost:g}",
        "served by": prepared.project.serving.engine,
        "run": f"`{of.run_id}`",
    }
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def _data(prepared: Prepared) -> str:
    rows = [["split", "clips", "minutes", "speakers", "sha256 of audio and texts"]]
    for split, recordings in prepared.dataset.splits.items():
        minutes = sum(recording.duration_s for recording in recordings) / 60
        speakers = len({recording.row.speaker for recording in recordings if recording.row.speaker})
        digest = f"`{prepared.dataset.digest(split)[:16]}…`"
        rows.append(
            [split.replace("_", " "), str(len(recordings)), f"{minutes:.1f}", str(speakers or "unknown"), digest]
        )
    return markdown_table(rows)
