"""The card of an exported model; its code is what the export itself is tried by, and so is true."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Literal

from wertune.base.contract import RESULT_METRICS

Format = Literal["peft", "merged", "ctranslate2"]

MAX_NEW_TOKENS = 440
WHISPER_LICENCE = "MIT"
_RESULTS = ("test WER", "test CER", "test term recall", "retention test WER")

_HUGGING_FACE = """\
import soundfile
import torch
{peft_import}from transformers import WhisperForConditionalGeneration, WhisperProcessor

processor = WhisperProcessor.from_pretrained({base})
model = WhisperForConditionalGeneration.from_pretrained({base}, dtype=torch.float32)
{adapter}

def transcribe(path):
    samples, rate_hz = soundfile.read(path, dtype="float32")
    features = processor(samples, sampling_rate=rate_hz, return_tensors="pt").input_features
    ids = model.generate(input_features=features, num_beams=1, do_sample=False, {options})
    return processor.batch_decode(ids, skip_special_tokens=True)[0].strip()
"""

_FASTER_WHISPER = """\
from faster_whisper import WhisperModel

model = WhisperModel(".", device="cpu", compute_type="int8")
options = {{
    "language": "{language}",
    "beam_size": 1,
    "temperature": 0.0,
    "without_timestamps": True,
    "condition_on_previous_text": False,
}}


def transcribe(path):
    segments, _ = model.transcribe(path, **options)
    return "".join(segment.text for segment in segments).strip()
"""

_CTRANSLATE2 = """\
import ctranslate2
import soundfile
from transformers import WhisperFeatureExtractor, WhisperTokenizerFast

model = ctranslate2.models.Whisper(".", device="cpu", compute_type="int8")
extractor = WhisperFeatureExtractor.from_pretrained(".")
tokenizer = WhisperTokenizerFast.from_pretrained(".")
{prefix}prompt = tokenizer("").input_ids[:-1]


def transcribe(path):
    samples, rate_hz = soundfile.read(path, dtype="float32")
    features = extractor(samples, sampling_rate=rate_hz, return_tensors="np").input_features
    found = model.generate(ctranslate2.StorageView.from_array(features), [prompt], beam_size=1)
    return tokenizer.decode(found[0].sequences_ids[0], skip_special_tokens=True).strip()
"""


def loading_code(form: Format, base: str, revision: str | None, language: str, multilingual: bool) -> str:
    """Python that loads what lies in its working folder and defines `transcribe(path)`; `base` is for `peft` alone."""
    if form == "ctranslate2":
        if find_spec("faster_whisper"):
            return _FASTER_WHISPER.format(language=language)
        prefix = f'tokenizer.set_prefix_tokens(language="{language}", task="transcribe")\n' if multilingual else ""
        return _CTRANSLATE2.format(prefix=prefix)
    options = f"max_new_tokens={MAX_NEW_TOKENS}"
    if multilingual:
        options += f', language="{language}", task="transcribe"'
    where = json.dumps(base if form == "peft" else ".")
    if form == "peft" and revision:
        where += f", revision={json.dumps(revision)}"
    return _HUGGING_FACE.format(
        peft_import="from peft import PeftModel\n" if form == "peft" else "",
        base=where,
        adapter='model = PeftModel.from_pretrained(model, ".").eval()\n' if form == "peft" else "",
        options=options,
    )


def libraries(form: Format) -> dict[str, str]:
    """The packages that the code needs, at the versions that it was tried with."""
    names = {
        "peft": ("peft", "transformers", "torch", "soundfile"),
        "merged": ("transformers", "torch", "soundfile"),
        "ctranslate2": ("faster-whisper", "ctranslate2")
        if find_spec("faster_whisper")
        else ("ctranslate2", "transformers", "soundfile"),
    }
    return {name: version(name) for name in names[form]}


def card(record: Mapping[str, Any], code: str, domain: str, registered: Mapping[str, float], licence: str) -> str:
    """README.md of the folder, from what export.json says, the code that was run, and the metrics of its search."""
    form, base, wer = record["format"], record["base_model"], record["wer"]
    needed = " ".join(f'"{name}=={number}"' for name, number in record["libraries"].items())
    parts = {"peft": "A LoRA adapter", "merged": "A model in float16", "ctranslate2": "A model in CTranslate2's int8"}
    return f"""\
---
language: {record["language"]}
{_front_matter(form, base)}---

# {record["model"]}

{parts[form]}: Whisper (`{base["source"]}`) adapted to {domain}. {_of_base(form, base)}

## How to load it

In this folder, after `pip install {needed}`; recordings of 16 kHz, mono, at most 30 s:

```python
{code}```

`transcribe("clip.wav")` gives the text. This very code wrote the texts of the next table's first row.

## Results

WER on {record["clips"]} clips of the test split:

| | WER |
|---|---|
| this folder, by the code above: 30 s of context, greedy | {wer["exported"]:.2%} |
| the registered version, decoded in the same way | {wer["version_same_decoding"]:.2%} |
| the registered version as it serves: its own context, beams and boost of terms | {wer["version_as_served"]:.2%} |

{_registered_table(registered)}
The last rows' decoding is no part of this folder: expect the first row's figures of it.

## Licence

{_licence(base, licence)}
"""


def _front_matter(form: Format, base: Mapping[str, Any]) -> str:
    hub = f"base_model: {base['source']}\n" if base["on_hub"] else ""
    library = {"peft": "peft", "merged": "transformers", "ctranslate2": "ctranslate2"}[form]
    return f"{hub}library_name: {library}\npipeline_tag: automatic-speech-recognition\n"


def _of_base(form: Format, base: Mapping[str, Any]) -> str:
    if form != "peft":
        return "Base and adapter are one: nothing else is needed."
    if not base["on_hub"]:
        return "The base that it belongs to lies in `base`, since it is on no hub under that name."
    return f"It belongs to that base{' at revision ' + base['revision'] if base['revision'] else ''} alone."


def _registered_table(registered: Mapping[str, float]) -> str:
    rows = [
        (label, registered.get(f"baseline_{name}"), registered.get(name))
        for label, name in zip(_RESULTS, RESULT_METRICS, strict=True)
    ]
    known = [
        f"| {label} | {_percent(before)} | {_percent(after)} |" for label, before, after in rows if after is not None
    ]
    if not known:
        return ""
    head = "Of the registered version as it serves, on whole sets:\n\n| | untouched base | version |\n|---|---|---|\n"
    return head + "\n".join(known) + "\n"


def _percent(rate: float | None) -> str:
    return "" if rate is None else f"{rate:.2%}"


def _licence(base: Mapping[str, Any], licence: str) -> str:
    source = base["source"]
    openai = source.startswith(("packaged:whisper-", "openai/whisper-"))
    of_base = (
        f"OpenAI's weights are under the {WHISPER_LICENCE} licence"
        if openai
        else f"The base's licence is that of `{source}`"
    )
    return f"{of_base}. The adapter's: {licence or 'none was given with the export; ask who made it'}."
