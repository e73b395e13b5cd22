"""A Whisper of random weights, in a folder as Hugging Face has them: times and memory depend on its size alone."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, WhisperForConditionalGeneration
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from wertune.bench.counted import shape
from wertune.whisper.hugging_face import END, TIMESTAMPS, preprocessor_config

MULTILINGUAL = 99  # languages, without Cantonese, which came with large-v3
TEXT_TOKENS = 50257
STD = 0.02  # as transformers starts weights


@dataclass(frozen=True)
class Size:
    """The dimensions of a Whisper by their usual name, and whether a trial would go through its layers twice."""

    name: str
    d_model: int
    layers: int
    heads: int
    is_checkpointed: bool = False


OPENAI = (
    Size("tiny", 384, 4, 6),
    Size("base", 512, 6, 8),
    Size("small", 768, 12, 12),
    Size("large-v2", 1280, 32, 20, is_checkpointed=True),
)
SMALL = (Size("2 layers of 64", 64, 2, 2), Size("3 layers of 96", 96, 3, 2, is_checkpointed=True))


def write_base(folder: Path, size: Size, device: torch.device) -> Path:
    """Makes `folder`, a multilingual Whisper of that size: weights in float16, a tokenizer that spells in bytes."""
    folder.mkdir(parents=True)
    special = [END, "<|startoftranscript|>", *(f"<|{code}|>" for code in [*LANGUAGES][:MULTILINGUAL])]
    special += [f"<|{name}|>" for name in ("translate", "transcribe", "startoflm", "startofprev", "nospeech")]
    special += ["<|notimestamps|>"]
    ids = {name: TEXT_TOKENS + number for number, name in enumerate(special)}
    end, start = ids[END], ids["<|startoftranscript|>"]
    named = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "decoder_start_token_id": start}
    _write_tokenizer(folder, special)
    config = shape(size.d_model, size.layers, size.heads, vocabulary=ids["<|notimestamps|>"] + 1 + TIMESTAMPS)
    config.update({**named, "suppress_tokens": [], "begin_suppress_tokens": []})
    torch.manual_seed(0)
    with torch.device(device):
        model = WhisperForConditionalGeneration(config)
    for table in (model.model.decoder.embed_positions, model.model.encoder.embed_positions):
        torch.nn.init.normal_(table.weight, std=STD)
    model.generation_config = GenerationConfig(
        **named,
        is_multilingual=True,
        lang_to_id={f"<|{code}|>": ids[f"<|{code}|>"] for code in [*LANGUAGES][:MULTILINGUAL]},
        task_to_id={task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")},
        no_timestamps_token_id=ids["<|notimestamps|>"],
        max_length=448,
    )
    model.half().save_pretrained(folder)
    return folder


def _write_tokenizer(folder: Path, special: list[str]) -> None:
    """As many tokens of text as OpenAI's, of which all but the bytes are never written."""
    spelt = sorted(pre_tokenizers.ByteLevel.alphabet())
    text = {token: number for number, token in enumerate(spelt)}
    text |= {f"unused {number}": number for number in range(len(spelt), TEXT_TOKENS)}
    tokenizer = Tokenizer(models.BPE(vocab=text, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in special])
    times = [f"<|{0.02 * number:.2f}|>" for number in range(TIMESTAMPS)]
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in times])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "WhisperTokenizer", "eos_token": END, "bos_token": END, "unk_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    extractor = preprocessor_config(80, 1500)
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor), encoding="utf-8")
