"""The recipe that the field tunes Whisper by, written from its description to be measured beside ours.

It is the one of PEFT's int8 Whisper notebook and its copies: every clip padded to 30 s, LoRA on q_proj and v_proj of an
8-bit base made ready by `prepare_model_for_kbit_training` (gradient checkpointing, inputs that ask for gradients),
Hugging Face's Seq2SeqTrainer, and greedy generation at 30 s in batches of eight. LLM.int8 keeps its outliers. Features
are worked out beforehand, and bfloat16 or float16 is used where the hardware multiplies it, as in ours.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model, prepare_model_for_kbit_training
from transformers import (
    BitsAndBytesConfig,
    PrinterCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    WhisperForConditionalGeneration,
)

from wertune.base.config import LoraConfig
from wertune.whisper.footprint import product_dtype
from wertune.whisper.model import Whisper

EVALUATION_BATCH = 8
LONGEST_TEXT_TOKENS = 128


class PeerRecipe:
    """The recipe on one base, with features (mel_bins, 3000) and texts at hand; its weights 8-bit, or of a dtype."""

    def __init__(
        self,
        base: Path,
        ours: Whisper,
        lora: LoraConfig,
        checkpointing: bool = True,
        weights: torch.dtype = torch.int8,
    ) -> None:
        self._ours = ours  # for its tokenizer and labels alone
        if weights == torch.int8:
            self.model = peer_model(base, ours.device, lora, checkpointing)
        else:
            self.model = with_adapters(_unquantized(base, weights).to(ours.device), lora)

    def train(
        self,
        features: Sequence[torch.Tensor],
        texts: Sequence[str],
        batch_size: int,
        scratch: Path,
        learning_rate: float = 1e-3,
        epochs: int = 1,
        after_epoch: Callable[[], None] = lambda: None,
    ) -> float:
        """Seconds from the first step's beginning to the last one's end."""
        labels = [self._ours.label_ids(text) for text in texts]
        rows = [{"input_features": f, "labels": label} for f, label in zip(features, labels, strict=True)]
        products = product_dtype(self._ours.device)
        arguments = Seq2SeqTrainingArguments(
            output_dir=str(scratch),
            per_device_train_batch_size=batch_size,
            learning_rate=learning_rate,
            num_train_epochs=epochs,
            use_cpu=self._ours.device.type == "cpu",
            bf16=products == torch.bfloat16,
            fp16=products == torch.float16,
            remove_unused_columns=False,
            label_names=["labels"],
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=self._ours.device.type == "cuda",
        )
        arguments._n_gpu = 1  # on a machine with several, the trainer would take as many batches at once
        clock = _Clock(after_epoch)
        self.model.train()
        self.model.config.use_cache = False
        trainer = Seq2SeqTrainer(
            model=self.model, args=arguments, train_dataset=rows, data_collator=self._collate, callbacks=[clock]
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return clock.seconds

    @torch.no_grad()
    def transcribe(self, features: Sequence[torch.Tensor], longest: int = LONGEST_TEXT_TOKENS) -> list[str]:
        """Greedy, at 30 s; texts of at most so many tokens."""
        self.model.eval()
        self.model.config.use_cache = True
        device, texts = self._ours.device, []
        for start in range(0, len(features), EVALUATION_BATCH):
            batch = torch.stack(list(features[start : start + EVALUATION_BATCH])).to(device)
            with _autocast(device):
                ids = self.model.generate(input_features=batch, max_new_tokens=longest)
            texts += self._ours.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return texts

    def _collate(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return {
            "input_features": torch.stack([row["input_features"] for row in rows]),
            "labels": self._ours.pad_labels([row["labels"] for row in rows]),
        }


def peer_model(base: Path, device: torch.device, lora: LoraConfig, checkpointing: bool = True) -> PeftModel:
    """The 8-bit base of a local Hugging Face folder with adapters, as the notebook makes it ready."""
    model = WhisperForConditionalGeneration.from_pretrained(
        base,
        quantization_config=BitsAndBytesConfig(load_in_8bit=True),
        device_map={"": str(device)},
        dtype=torch.float32,
        local_files_only=True,
    )
    return with_adapters(prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointing), lora)


def _unquantized(base: Path, weights: torch.dtype) -> WhisperForConditionalGeneration:
    return WhisperForConditionalGeneration.from_pretrained(base, dtype=weights, local_files_only=True)


def with_adapters(model: WhisperForConditionalGeneration, lora: LoraConfig) -> PeftModel:
    """PEFT's adapters on the modules of these names, wherever they stand."""
    config = PeftLoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(lora.target_modules)
    )
    return get_peft_model(model, config)


def module_loss(
    model: PeftModel | WhisperForConditionalGeneration,
    features: torch.Tensor,
    labels: torch.Tensor,
    products: torch.dtype | None = None,
) -> torch.Tensor:
    """Of transformers' modules; without a word on it, products in what the device multiplies."""
    with _autocast(features.device, products):
        return torch.as_tensor(model(input_features=features, labels=labels, use_cache=False).loss)


def _autocast(device: torch.device, products: torch.dtype | None = None) -> torch.autocast:
    products = products or product_dtype(device)
    return torch.autocast(device.type, products, enabled=products != torch.float32)


@contextmanager
def at_context(model: PeftModel, positions: int) -> Iterator[None]:
    """transformers' encoder with the first of its positions alone: it takes as many as its table has, no other."""
    config, encoder = model.config, model.base_model.model.get_encoder()
    whole, whole_positions = encoder.embed_positions, config.max_source_positions
    try:
        table = torch.nn.Embedding.from_pretrained(whole.weight[:positions])  # type: ignore[no-untyped-call]
        encoder.embed_positions = table
        config.max_source_positions = positions
        yield
    finally:
        encoder.embed_positions, config.max_source_positions = whole, whole_positions


class _Clock(TrainerCallback):  # type: ignore[misc]
    """What stands before the first step and after the last is the trainer's, not the recipe's."""

    def __init__(self, after_epoch: Callable[[], None]) -> None:
        self._started = self.seconds = 0.0
        self._after_epoch = after_epoch

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._started = self._started or time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == state.max_steps and torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - self._started

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._after_epoch()
