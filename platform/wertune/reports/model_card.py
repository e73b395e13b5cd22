"""The card of a registered version: what it is, what it was made of, what it can and cannot do, how to use it."""

from collections.abc import Mapping
from dataclasses import dataclass

from wertune.base import contract
from wertune.base.config import TrialConfig
from wertune.scores.comparison import markdown_table
from wertune.training.prepare import Prepared

_SCOPES = {"both": "encoder and decoder", "encoder": "the encoder", "decoder": "the decoder"}


@dataclass(frozen=True)
class CardOf:
    """What a card tells of, beside the project."""

    version: str
    run_id: str
    config: TrialConfig
    sizes: Mapping[str, float]


def model_card(of: CardOf, prepared: Prepared) -> str:
    """The card in Markdown, as it stands at registration; wergate renews what its moves change."""
    name, card = prepared.project.name, prepared.project.card
    parts = [
        f"# {name} version {of.version}",
        card.about,
        f"A LoRA adapter on an untouched Whisper for the domain `{name}`, {_languages(prepared)}.",
        f"## {contract.RESULTS}",
        "Not measured as it serves yet.",
        f"## {contract.AGAINST_PRODUCTION}",
        "No gate has judged it.",
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
