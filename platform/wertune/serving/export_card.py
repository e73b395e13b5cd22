"""The card of an exported model; its code is what the export itself is tried by, and so is true."""

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from jinja2 import StrictUndefined, Template

from wertune.base.contract import RESULT_METRICS
from wertune.whisper.loops import SPARE_TOKENS

Format = Literal["peft", "merged", "ctranslate2"]

MAX_NEW_TOKENS = 440
PROMPT_OF_ENGLISH_ONLY = 2  # the start and no timestamps; other bases are told language and task between them
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
    limit = {limit}
    features = processor(samples, sampling_rate=rate_hz, return_tensors="pt").input_features
    ids = model.generate(input_features=features, num_beams=1, do_sample=False, max_new_tokens=limit{options})
    return processor.batch_decode(ids, skip_special_tokens=True)[0].strip()
"""

_FASTER_WHISPER = """\
import soundfile
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
    about = soundfile.info(path)
    samples, rate_hz = range(about.frames), about.samplerate
    limit = {limit}
    segments, _ = model.transcribe(path, max_new_tokens=limit, **options)
    return "".join(segment.text for segment in segments).strip()
"""

_CTRANSLATE2 = """\
import ctranslate2
import soundfile
from transformers import WhisperFeatureExtractor, WhisperTokenizerFast

model = ctranslate2.models.Whisper(".", device="cpu", compute_type="int8")
extractor = WhisperFeatureExtractor.from_pretrained(".")
tokenizer = WhisperTokenizerFast.from_pretrained(".")
prompt = tokenizer.convert_tokens_to_ids({prompt})


def transcribe(path):
    samples, rate_hz = soundfile.read(path, dtype="float32")
    limit = {limit}
    features = extractor(samples, sampling_rate=rate_hz, return_tensors="np").input_features
    found = model.generate(ctranslate2.StorageView.from_array(features), [prompt], beam_size=1, max_length=2 * limit)
    return tokenizer.decode(found[0].sequences_ids[0], skip_special_tokens=True).strip()
"""


def loading_code(
    form: Format, base: str, revision: str | None, language: str, prompt: Sequence[str], tokens_per_second: float
) -> str:
    """Python that loads what lies in its working folder and defines `transcribe(path)`; `base` is for `peft` alone.

    `prompt` are the tokens before a text; as in serving, a loop ends at so many tokens a second.
    """
    multilingual = len(prompt) > PROMPT_OF_ENGLISH_ONLY
    limit = f"min({MAX_NEW_TOKENS}, {SPARE_TOKENS} + round({tokens_per_second:g} * len(samples) / rate_hz))"
    if form == "ctranslate2":
        if find_spec("faster_whisper"):
            return _FASTER_WHISPER.format(language=language, limit=limit)
        return _CTRANSLATE2.format(prompt=json.dumps(list(prompt)), limit=limit)
    options = f', language="{language}", task="transcribe"' if multilingual else ""
    where = json.dumps(base if form == "peft" else ".")
    if form == "peft" and revision:
        where += f", revision={json.dumps(revision)}"
    return _HUGGING_FACE.format(
        peft_import="from peft import PeftModel\n" if form == "peft" else "",
        base=where,
        adapter='model = PeftModel.from_pretrained(model, ".").eval()\n' if form == "peft" else "",
        options=options,
        limit=limit,
    )


def libraries(form: Format) -> dict[str, str]:
    """The packages that the code needs, at the versions that it was tried with."""
    first = {"peft": ["peft"], "merged": [], "ctranslate2": ["ctranslate2"]}[form]
    names = [*first, "transformers", *(["torch"] if form != "ctranslate2" else []), "soundfile"]
    if form == "ctranslate2" and find_spec("faster_whisper"):
        names = ["faster-whisper", "ctranslate2"]
    return {name: version(name) for name in names}


def card(record: Mapping[str, Any], code: str, domain: str, registered: Mapping[str, float], licence: str) -> str:
    """README.md of the folder, from what export.json says, the code that was run, and the metrics of its search."""
    template = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")
    markdown = Template(template, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    figures = zip(_RESULTS, RESULT_METRICS, strict=True)
    known = [(label, registered.get(f"baseline_{key}"), registered[key]) for label, key in figures if key in registered]
    shown = {"base": record["base_model"], "code": code, "domain": domain, "registered": known, "licence": licence}
    text: str = markdown.render(record, percent=lambda rate: "" if rate is None else f"{rate:.2%}", **shown)
    return text
