"""A registered version as a folder for plain libraries: written whole, then loaded and heard in those libraries."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, cast

import soundfile

from wertune.base.config import ContextConfig, DecodeConfig, load_project
from wertune.base.contract import EXPORT_PREFIX
from wertune.base.errors import ExportError, TrackingError
from wertune.base.files import replacing_folder, storing
from wertune.base.machine import require_engine
from wertune.data.audio import SAMPLE_RATE_HZ, Samples
from wertune.data.long_form import joined_recordings
from wertune.data.manifest import Recording
from wertune.scores.eval_report import ExportedLong
from wertune.serving.export_card import MAX_NEW_TOKENS, Format, card, libraries, loading_code
from wertune.serving.export_long import Tried, try_long, ways_of
from wertune.serving.pyfunc import load_registered
from wertune.serving.served import Served, base_of
from wertune.tracking.runs import tracking_uri
from wertune.tracking.versions import RegisteredVersion, registered_version, tag_version
from wertune.training.prepare import Prepared, prepare
from wertune.whisper.adapter import ADAPTER_FILES, amend_config, merged
from wertune.whisper.base_model import BaseModel
from wertune.whisper.ctranslate2_engine import converted
from wertune.whisper.hugging_face import preprocessor_config, read_json
from wertune.whisper.loops import LEAST_RATE
from wertune.whisper.transcription import Transcriber, transcribe_samples

RECORD = "export.json"
# What plain libraries do: no boost, no guard against loops; what is longer than a clip may be is cut there, too.
PLAIN = DecodeConfig(max_new_tokens=MAX_NEW_TOKENS, loop_guard=False, may_be_empty=False, batch_size=8)
FEATURES = "preprocessor_config.json"
_WEIGHTS_AND_OWN = ("config.json", "generation_config.json", "source.json")
_RUN_CARD = """\
import json, sys
asked, out = json.load(sys.stdin)
texts = []
for code, clips in asked:
    names = {"__name__": "card"}
    exec(code, names)
    texts.append([names["transcribe"](clip) for clip in clips])
json.dump(texts, open(out, "w"))
"""


@dataclass(frozen=True)
class Exported:
    """The folder, and what is to be said of it."""

    folder: Path
    record: dict[str, Any]
    text: str


def free_for_export(folder: Path, force: bool) -> None:
    """Raises ExportError where something stands at `folder` that may not be replaced."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not force:
        raise ExportError(
            f"{folder} exists and is not empty; name another folder, or replace an export with --force true"
        )
    if not (folder / RECORD).is_file():
        raise ExportError(
            f"{folder} has no {RECORD} and so is no export; --force replaces exports only: remove it first"
        )


class Heard(Protocol):
    """Whatever has samples (n,) at 16 kHz, mono: a clip, or a long recording."""

    @property
    def samples(self) -> Callable[[], Samples]: ...


def export(
    project: Path,
    uri: str,
    form: str,
    folder: Path,
    clips: int = 16,
    limit: float = 0.03,
    licence: str = "",
    recordings: int = 3,
) -> Exported:
    """Writes the version `uri` as `form` to `folder`, and compares it there with the version by WER.

    So many long `recordings`, joined of test clips, are read there, too, in the ways that come with plain libraries;
    what that gave is kept with the version, for gates.

    The folder is whole or not there. Raises ExportError where its WER is more than `limit` above the version's, the
    folder left for a look, or where the plain library cannot load it, nothing left.
    """
    form_ = cast(Format, form)
    if form_ == "ctranslate2":
        require_engine("ctranslate2")
    config = load_project(project)
    prepared = prepare(project, config, {"test": project.resolve() / config.data.test})
    registered = registered_version(tracking_uri(), uri)
    served = load_registered(f"models:/{registered.name}/{registered.version}", "torch")
    base = base_of(served.settings)
    chosen = sample(prepared.dataset["test"], clips)
    with _partial(folder) as partial:
        write_folder(served, base, form_, partial)
        wording = served.artefact().wording
        rate = served.decode.tokens_per_second or LEAST_RATE
        code = loading_code(form_, *_base_for_card(served), served.settings["language"], wording.prompt_names, rate)
        record = {
            "model": f"{registered.name} {registered.version}",
            "format": form_,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "language": served.settings["language"],
            "base_model": dict(served.settings["base_model"]) | {"on_hub": _is_on_hub(served)},
            "clips": len(chosen),
            "libraries": libraries(form_),
            **compare(prepared, served, chosen, run_cards([(code, chosen)], partial)[0], limit),
        }
        long = _try_long(prepared, served, form_, partial, recordings)
        record["long"] = long.record()
        domain = f"the domain {config.name}, whose lexicon has {len(prepared.lexicon.written)} terms"
        (partial / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (partial / "README.md").write_text(card(record, code, domain, registered.metrics, licence), encoding="utf-8")
    exported = _judged(folder, record)
    kept = _keep(registered, long.ways)
    return replace(exported, text="\n".join(filter(None, [exported.text, *long.lines, kept])))


def _try_long(prepared: Prepared, served: Served, form: Format, folder: Path, count: int) -> Tried:
    """Long recordings read from the folder, where there is a library that reads them so."""
    ways = ways_of(form, served.settings["language"], served.artefact().wording.prompt_names)
    if isinstance(ways, str):
        return Tried(ways)
    recordings = joined_recordings(prepared.dataset["test"], count)
    return try_long(prepared, served, ways, recordings, lambda asked: run_cards(asked, folder))


def _keep(registered: RegisteredVersion, ways: Mapping[str, ExportedLong]) -> str:
    """Keeps with the version what gates may ask for; what is to be said where its registry does not take it."""
    tags = {f"{EXPORT_PREFIX}{name}": found.model_dump_json() for name, found in ways.items()}
    try:
        tag_version(tracking_uri(), registered, tags)
    except TrackingError as error:
        return f"no gate will know how long recordings were read: that could not be kept with the version ({error})"
    return ""


def sample(recordings: Sequence[Recording], clips: int) -> list[Recording]:
    """At most so many, spread over the whole set."""
    count = min(clips, len(recordings))
    return [recordings[i * len(recordings) // count] for i in range(count)]


@contextmanager
def _partial(folder: Path) -> Iterator[Path]:
    """A folder to be filled, which takes the place of `folder` when the block ends well, and goes otherwise."""
    remedy = "free some space there, or name a folder on another disk"
    with storing("the export", folder, remedy), replacing_folder(folder.absolute()) as writing:
        yield writing
        for path in [writing, *writing.rglob("*")]:  # safetensors writes 0600, which no colleague can read
            path.chmod(0o755 if path.is_dir() else 0o644)


def write_folder(served: Served, base: BaseModel, form: Format, folder: Path) -> None:
    """The weights and all that the plain library reads beside them."""
    language = served.settings["language"]
    if form == "peft":
        _write_peft(served, base, folder)
    elif form == "merged":
        merged(base.path, served.adapter, language).half().save_pretrained(folder)
        _copy_wording(base, folder)
        _complete_generation(served, folder)
    else:
        made = converted(base, served.adapter, language)
        for file in made.iterdir():
            if file.name != "source.json":
                shutil.copyfile(file, folder / file.name)
        _copy_wording(base, folder)


def _write_peft(served: Served, base: BaseModel, folder: Path) -> None:
    """The adapter as it is stored, its strength in alpha already; with its base where that is on no hub."""
    for name in ADAPTER_FILES:
        shutil.copyfile(served.adapter / name, folder / name)
    where, _ = _base_for_card(served)
    amend_config(folder, base_model_name_or_path=where)
    if not _is_on_hub(served):
        (folder / "base").mkdir()
        for file in base.path.iterdir():
            if file.suffix in (".json", ".safetensors", ".txt") and file.name != "source.json":
                shutil.copyfile(file, folder / "base" / file.name)
        _write_features(base, folder / "base")
        _complete_generation(served, folder / "base")


def _write_features(base: BaseModel, folder: Path) -> None:
    """How features are made, in the one file that all plain libraries read: a base of transformers 5 may lack it."""
    bins = int(read_json(base.path / "config.json")["num_mel_bins"])
    own = base.path / FEATURES
    if not own.is_file() or read_json(own).get("feature_size") != bins:
        content = json.dumps(preprocessor_config(bins), indent=1) + "\n"
        (folder / FEATURES).write_text(content, encoding="utf-8")


def _complete_generation(served: Served, folder: Path) -> None:
    """What plain transformers need to be told a language, where the base's file, an old one, does not say it."""
    path = folder / "generation_config.json"
    said = read_json(path) if path.is_file() else {}
    path.write_text(json.dumps(served.artefact().wording.facts() | said, indent=1) + "\n", encoding="utf-8")


def _copy_wording(base: BaseModel, folder: Path) -> None:
    """Tokenizer and feature extractor."""
    for file in base.path.iterdir():
        if file.suffix in (".json", ".txt") and file.name not in _WEIGHTS_AND_OWN and "safetensors" not in file.name:
            shutil.copyfile(file, folder / file.name)
    _write_features(base, folder)


def _is_on_hub(served: Served) -> bool:
    source = str(served.settings["base_model"]["source"])
    return not source.startswith("packaged:") and not Path(source).expanduser().is_dir()


def _base_for_card(served: Served) -> tuple[str, str | None]:
    """Where plain transformers find the base, and its revision."""
    base = served.settings["base_model"]
    return (base["source"], base["revision"]) if _is_on_hub(served) else ("base", None)


def run_cards(asked: Sequence[tuple[str, Sequence[Heard]]], folder: Path) -> list[list[str]]:
    """What each code of the card writes for each of its recordings, in an interpreter that knows nothing of ours."""
    with tempfile.TemporaryDirectory(prefix="wertune-") as scratch:
        heard = {id(recording): recording for _, recordings in asked for recording in recordings}
        clips = {each: str(Path(scratch) / f"{number}.wav") for number, each in enumerate(heard)}
        for each, recording in heard.items():
            soundfile.write(clips[each], recording.samples(), SAMPLE_RATE_HZ, subtype="FLOAT")
        named = [(code, [clips[id(recording)] for recording in recordings]) for code, recordings in asked]
        out = Path(scratch) / "texts.json"
        done = subprocess.run(
            [sys.executable, "-I", "-c", _RUN_CARD],
            input=json.dumps([named, str(out)]),
            cwd=folder,
            env={key: value for key, value in os.environ.items() if key != "MLFLOW_RUN_ID"},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            last = (done.stderr.strip() or f"status {done.returncode}").splitlines()[-1]
            rule = "what was exported must load in the plain library"
            raise ExportError(f"the code of the card failed ({last}), but {rule}; compare the installed versions")
        texts: list[list[str]] = json.loads(out.read_text(encoding="utf-8"))
        return texts


def compare(
    prepared: Prepared, served: Served, recordings: Sequence[Recording], texts: Sequence[str], limit: float
) -> dict[str, Any]:
    """WER of the exported texts, and of the version decoded alike and as it serves, with the verdict."""
    plain = PLAIN.model_copy(update={"tokens_per_second": served.decode.tokens_per_second})
    alike = _texts(served.whisper, recordings, ContextConfig(short=False), plain)
    written = {
        "exported": texts,
        "version_same_decoding": alike,
        "version_as_served": _texts(served.whisper, recordings, served.context, served.decode),
    }
    rates = {name: prepared.score(recordings, each).wer for name, each in written.items()}
    difference = rates["exported"] - rates["version_same_decoding"]
    rows = [
        {"reference": r.text, "exported": mine, "version": other}
        for r, mine, other in zip(recordings, texts, alike, strict=True)
    ]
    return {"wer": rates, "difference": difference, "limit": limit, "passed": difference <= limit, "texts": rows}


def _texts(
    whisper: Transcriber, recordings: Sequence[Recording], context: ContextConfig, decode: DecodeConfig
) -> list[str]:
    samples = [recording.samples() for recording in recordings]
    return [transcript.text for transcript in transcribe_samples(whisper, samples, context, decode)]


def _judged(folder: Path, record: dict[str, Any]) -> Exported:
    wer, difference = record["wer"], 100 * record["difference"]
    loaded_by = " ".join(next(iter(record["libraries"].items())))  # the first, and its version
    figures = (
        f"WER on {record['clips']} clips, 30 s of context, greedy: {wer['exported']:.2%} in {loaded_by}, "
        f"{wer['version_same_decoding']:.2%} of the version ({difference:+.2f} points); "
        f"{wer['version_as_served']:.2%} as the version serves"
    )
    if record["format"] == "ctranslate2" and "faster-whisper" not in record["libraries"]:
        remedy = "`pip install faster-whisper` and export again to have it tried there too"
        figures += f"\nfaster-whisper is not installed, so that CTranslate2 alone has read the folder; {remedy}"
    if not record["passed"]:
        rule = f"may be at most {100 * record['limit']:g} points worse"
        remedy = "the folder is left for a look; measure with more --clips, export another form, or raise --limit"
        raise ExportError(f"{folder}: {figures}, but {rule}; {remedy}")
    return Exported(folder, record, f"{folder}: {record['model']} as {record['format']}\n{figures}")
