"""Files in, texts out: a batch of recordings, whose faults are told one by one and stop none of the others."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from wertune.base.errors import AudioError, ConfigError
from wertune.base.files import check_writable, storing, write_atomically
from wertune.data.audio import Samples, load_audio
from wertune.data.importers.item import AUDIO_SUFFIXES
from wertune.serving.listener import Voice
from wertune.serving.subtitles import TextFormat, rendered

Say = Callable[[str], None]
OUT_REMEDY = "free some space there, or give --out a folder that can be written"


def recordings_of(paths: Sequence[Path]) -> list[Path]:
    """The files as they are named, and in the place of a folder the recordings directly in it."""
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in AUDIO_SUFFIXES)
        if not found:
            raise ConfigError(f"{path} holds no recording ({', '.join(sorted(AUDIO_SUFFIXES))}); name files")
        files += found
    return files


def check_exist(files: Sequence[Path]) -> None:
    """Raises ConfigError with every file that is not there."""
    gone = [str(file) for file in files if not file.exists()]
    if gone:
        raise ConfigError(f"{', '.join(gone)} {'do' if len(gone) > 1 else 'does'} not exist; mend the names")


def check_out(files: Sequence[Path], out: Path, form: TextFormat) -> None:
    """As `check_names`; StorageError where the texts could not be written."""
    check_names(files, out, form)
    check_writable(_target(files[0], out, form), "the texts", OUT_REMEDY)


def check_names(files: Sequence[Path], out: Path, form: TextFormat) -> None:
    """Raises ConfigError where two recordings would be written to one file."""
    counts = Counter(_target(file, out, form) for file in files)
    twice = sorted(str(path) for path, count in counts.items() if count > 1)
    if twice:
        raise ConfigError(
            f"{', '.join(twice)} would be written by several recordings; give each folder an --out of its own"
        )


def transcribe_files(
    voice: Voice,
    files: Sequence[Path],
    form: TextFormat,
    out: Path | None,
    longest_s: float | None,
    say: Say,
    complain: Say,
) -> int:
    """Says or writes each recording's text in the order of the files; how many could not be read.

    JSON of several is said as one list, at the end.
    """
    failed = 0
    listed: list[str] | None = [] if form == "json" and out is None and len(files) > 1 else None
    for batch in _batches(files, voice.decode.batch_size):
        read = [(file, _read(file)) for file in batch]
        clips = [samples for _, samples in read if not isinstance(samples, AudioError)]
        written = iter(voice.write(clips, longest_s))
        for file, samples in read:
            if isinstance(samples, AudioError):
                failed += 1
                complain(str(samples))
                continue
            text = rendered(next(written), form, str(file), voice.name)
            if listed is not None:
                listed.append(text.rstrip("\n"))
            elif out is None:
                say(_shown(text, file, form, alone=len(files) == 1))
            else:
                say(str(_store(text, file, out, form)))
    if listed is not None:
        say("[" + ",\n".join(listed) + "]")
    return failed


def _batches(files: Sequence[Path], size: int) -> Iterator[Sequence[Path]]:
    for start in range(0, len(files), size):
        yield files[start : start + size]


def _read(file: Path) -> Samples | AudioError:
    try:
        return load_audio(file)
    except AudioError as error:
        return error


def _shown(text: str, file: Path, form: TextFormat, alone: bool) -> str:
    """Of several recordings each text with its file's name."""
    text = text.rstrip("\n")
    if alone:
        return text
    return f"{file}: {text}" if form == "txt" else f"{file}\n{text}\n"


def _target(file: Path, out: Path, form: TextFormat) -> Path:
    return out / f"{file.stem}.{form}"


def _store(text: str, file: Path, out: Path, form: TextFormat) -> Path:
    path = _target(file, out, form)
    with storing("the texts", out, OUT_REMEDY):
        write_atomically(path, lambda stream: stream.write(text.encode()))
    return path
