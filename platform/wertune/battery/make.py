"""Makes a battery of its form: Ogg Opus clips, `manifest.jsonl`, `sources.json`; equal ones for equal forms."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import cast

import numpy as np

from wertune.base.config import load_yaml
from wertune.base.errors import ManifestError, SynthesisError
from wertune.base.files import write_atomically
from wertune.battery.form import PADDING_S, PARTS, BatteryForm, BatteryVoice, Line, Part, People, read_line
from wertune.battery.shelf import MANIFEST, BatteryRow
from wertune.battery.sounds import babble, sounds
from wertune.data.audio import SAMPLE_RATE_HZ, Samples, load_audio, resample
from wertune.data.clip_files import level, trim, write_clip
from wertune.data.importers.item import numbered
from wertune.synthesis.casting import slug
from wertune.synthesis.engines import ENGINES, find_engine, offered_voices

AUDIO, SOURCES = "audio", "sources.json"
NONSPEECH: Part = "nonspeech"
FORMULA = "formula"
MARGIN_S = 0.15
LONGEST_S = 29.5
_FILES = re.compile(r"[^#]+(#\d+(\.\d+)?-\d+(\.\d+)?)?")


@dataclass(frozen=True)
class Spoken:
    """One text in one voice; `padded` it is kept twice, also with silence around it."""

    part: Part
    line: Line
    voice: BatteryVoice
    padded: bool

    @property
    def name(self) -> str:
        """Of the clip's file, without its ending: part, voice and a digest of what makes it sound as it does."""
        made_of = f"{self.line.said}|{self.voice.engine}|{self.voice.name}|{self.voice.speed}"
        return f"{self.part}-{self.voice.id}-{hashlib.sha256(made_of.encode()).hexdigest()[:8]}"


def plan(form: BatteryForm, voices: Sequence[BatteryVoice]) -> Iterator[Spoken]:
    """Each text in as many voices as its part asks for: the engines in turn, and of each engine its voices in turn."""
    by_engine: dict[str, list[BatteryVoice]] = {}
    for voice in voices:
        by_engine.setdefault(voice.engine, []).append(voice)
    turns = cycle([cycle(own) for own in by_engine.values()])
    for part, spoken, line in form.lines():
        for turn in islice(turns, min(spoken.per_text, len(voices))):
            yield Spoken(part, line, next(turn), spoken.padded)


def make_battery(
    form_path: Path, language: str, out: Path, recordings: Path | None = None, say: Callable[[str], object] = print
) -> list[BatteryRow]:
    """Writes the battery of `form_path` into `out`; what is there already is not spoken again.

    `recordings` is a folder into which packages of recordings were unpacked, in the place of `/`. Raises ConfigError
    for the form, ManifestError for transcripts, SynthesisError where an engine, a package or a speaker is missing; the
    manifest is written last.
    """
    form = load_yaml(form_path, BatteryForm)
    if language != form.language:
        raise SynthesisError(f"{form_path} is for {form.language}, but --language is {language}; change one of the two")
    voices = form.voices or _cast(language, say)
    rows = [row for spoken in plan(form, voices) for row in _speak(spoken, out, form.bitrate_kbps)]
    for people in form.recordings:
        rows += _record(people, form, form_path.parent, recordings, out)
    if form.sounds:
        rows += _sound(form, rows, out)
    rows = list({row.audio_filepath: row for row in rows}.values())
    _write(out, rows, _sources(form, voices))
    minutes = sum(row.duration for row in rows) / 60
    say(f"{len(rows)} clips of {len({row.speaker for row in rows if row.text})} speakers, {minutes:.1f} minutes: {out}")
    return rows


def _cast(language: str, say: Callable[[str], object]) -> tuple[BatteryVoice, ...]:
    """Every voice that the installed engines have for the language."""
    offered, absent = offered_voices(ENGINES, language)
    for engine, why in absent.items():
        say(f"not used: {engine}: {why}")
    if not offered:
        raise SynthesisError(f"no engine here speaks {language}; on Debian: apt-get install espeak-ng")
    return tuple(
        BatteryVoice(id=slug(f"{engine}-{o.name}"), engine=engine, name=o.name, speaker=o.speaker, licence=o.licence)
        for engine, offers in offered.items()
        for o in offers
    )


def _speak(spoken: Spoken, out: Path, bitrate_kbps: float) -> Iterator[BatteryRow]:
    """The clip, and where asked for the clip with silence around it; spoken only where it is not there yet."""
    names = [spoken.name, f"{spoken.name}-padded"] if spoken.padded else [spoken.name]
    if not all(_clip(out, name).is_file() for name in names):
        voice = spoken.voice
        samples, rate = find_engine(voice.engine).speak(spoken.line.said, voice.name, voice.speed)
        for name, clip in zip(names, _ready(resample(samples, rate), spoken.padded), strict=False):
            write_clip(_clip(out, name), clip, bitrate_kbps)
    for name in names:
        yield _row(out, name, spoken.line, spoken.part, spoken.voice.speaker, spoken.voice.id)


def _ready(samples: Samples, padded: bool) -> list[Samples]:
    """Trimmed and levelled; `padded` to the first sound, and again with silence on both sides."""
    if not padded:
        return [level(trim(samples, MARGIN_S))]
    bare = level(trim(samples, 0.0))
    return [bare, np.pad(bare, round(PADDING_S * SAMPLE_RATE_HZ))]


def _record(people: People, form: BatteryForm, base: Path, recordings: Path | None, out: Path) -> Iterator[BatteryRow]:
    """The package's recordings; short ones in turn bare and with silence around them."""
    folder = recordings / str(people.folder).lstrip("/") if recordings else people.folder
    if not folder.is_dir():
        raise SynthesisError(f"{folder} does not exist; on Debian: apt-get install {people.package}")
    for number, (file, part, speaker, text) in enumerate(_transcripts(base / people.transcripts)):
        name = slug(f"{part}-{people.source}-{file.rsplit('.', 1)[0]}")
        if not _clip(out, name).is_file():
            clip = _recorded(folder, file, part, padded=number % 2 == 1)
            write_clip(_clip(out, name), clip, form.bitrate_kbps)
        line = read_line(text, form.digits, form.letters)
        yield _row(out, name, line, cast(Part, part), speaker, people.source)


def _transcripts(path: Path) -> list[list[str]]:
    """File, part, speaker and text of each line; a ManifestError has every line that is none."""
    lines = [(place, line.split("\t")) for place, line in numbered(path)]
    rule = (
        f"must be FILE<TAB>PART<TAB>SPEAKER<TAB>TEXT, the file as a.ogg+b.ogg#3-8, the part one of {', '.join(PARTS)}"
    )
    if wrong := [
        place for place, each in lines if len(each) != 4 or each[1] not in PARTS or not _FILES.fullmatch(each[0])
    ]:
        raise ManifestError("\n".join(f"{place}: {rule}; mend the line" for place in wrong))
    return [each for _, each in lines]


def _recorded(folder: Path, file: str, part: str, padded: bool) -> Samples:
    """`a.ogg+b.ogg#3-8`: the files one after the other, of them the seconds 3 to 8."""
    files, _, seconds = file.partition("#")
    samples = np.concatenate([load_audio(folder / name) for name in files.split("+")])
    if seconds:
        start, end = (round(float(second) * SAMPLE_RATE_HZ) for second in seconds.split("-"))
        samples = samples[start:end]
    if part == NONSPEECH:
        return level(samples)
    return _ready(samples, padded=True)[padded] if part == "short_answers" else _ready(samples, padded=False)[0]


def _sound(form: BatteryForm, rows: Sequence[BatteryRow], out: Path) -> Iterator[BatteryRow]:
    """What nobody says: made by formula, and of the speech itself, backwards and all at once."""
    speech = [load_audio(out / row.audio_filepath) for row in rows if row.part == "everyday"]
    made = {**sounds(form.seed), **babble(speech, form.seed)}
    for name, samples in made.items():
        clip = f"{NONSPEECH}-{name}"
        if not _clip(out, clip).is_file():
            write_clip(_clip(out, clip), samples, form.bitrate_kbps)
        yield _row(out, clip, Line("", "", ()), NONSPEECH, "", FORMULA)


def _clip(out: Path, name: str) -> Path:
    return out / AUDIO / f"{name}.opus"


def _row(out: Path, name: str, line: Line, part: Part, speaker: str, source: str) -> BatteryRow:
    path = _clip(out, name)
    duration_s = load_audio(path).size / SAMPLE_RATE_HZ
    if duration_s > LONGEST_S:
        rule = f"must last at most {LONGEST_S:g} s"
        raise SynthesisError(f"{path} lasts {duration_s:.1f} s, but {rule}; shorten {line.text[:60]!r}")
    return BatteryRow(
        audio_filepath=f"{AUDIO}/{path.name}",
        text=line.text,
        duration=round(duration_s, 3),
        part=part,
        speaker=speaker,
        source=source,
        entities=line.entities,
    )


def _sources(form: BatteryForm, voices: Sequence[BatteryVoice]) -> dict[str, dict[str, str]]:
    """What each `source` of the manifest is, and its licence."""
    spoken = {voice.id: {"what": f"{voice.engine} {voice.name}", "licence": voice.licence} for voice in voices}
    recorded = {p.source: {"what": f"{p.package}: {p.folder}", "licence": p.licence} for p in form.recordings}
    made = {FORMULA: {"what": "sounds made by formula (battery/sounds.py)", "licence": "own work"}}
    return {**spoken, **recorded, **(made if form.sounds else {})}


def _write(out: Path, rows: Sequence[BatteryRow], sources: Mapping[str, Mapping[str, str]]) -> None:
    """The manifest and the sources, whole; clips that no row names are removed."""
    ordered = sorted(rows, key=lambda row: (PARTS.index(row.part), row.audio_filepath))
    lines = "".join(row.model_dump_json(exclude_defaults=True) + "\n" for row in ordered).encode()
    used = {row.source for row in rows}
    known = {name: dict(source) for name, source in sorted(sources.items()) if name in used}
    text = json.dumps(known, indent=1, ensure_ascii=False).encode() + b"\n"
    write_atomically(out / SOURCES, lambda file: file.write(text))
    write_atomically(out / MANIFEST, lambda file: file.write(lines))
    named = {out / row.audio_filepath for row in rows}
    for clip in (out / AUDIO).glob("*.opus"):
        if clip not in named:
            clip.unlink()
