"""What `synthesize` reads of a project: lexicon, sentences by split, voices; with defaults for what is not there."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wertune.base.config import ProjectConfig, load_yaml
from wertune.base.errors import SynthesisError
from wertune.base.text import Lexicon, Normalise, load_lexicon, normaliser
from wertune.synthesis.casting import cast_voices
from wertune.synthesis.config import SynthesisConfig
from wertune.synthesis.engines import ENGINES, offered_voices
from wertune.synthesis.sentences import Sentence, Speller, load_sentences, read_plain_sentences, split_sentences


@dataclass(frozen=True)
class SynthesisProject:
    """All that decides what is spoken; `project` is None where there is no project.yaml yet."""

    project: ProjectConfig | None
    language: str
    lexicon: Lexicon
    config: SynthesisConfig
    splits: Mapping[str, list[Sentence]]
    absent_engines: Mapping[str, str]

    @property
    def speller(self) -> Speller:
        return Speller(self.lexicon, self.language)

    @property
    def texts(self) -> list[str]:
        """Every sentence that is spoken, as written."""
        return [sentence.text for found in self.splits.values() for sentence in found]


def load_synthesis_project(folder: Path) -> SynthesisProject:
    """Needs sentences; lexicon.yaml, synthesis.yaml, project.yaml and general sentences where they are there.

    ConfigError or SynthesisError with what is wrong or missing.
    """
    project = load_yaml(folder / "project.yaml", ProjectConfig) if (folder / "project.yaml").exists() else None
    language = project.language if project else "en"
    usual = Path("lexicon.yaml") if (folder / "lexicon.yaml").exists() else None
    named = (project and project.lexicon) or usual
    lexicon = load_lexicon(folder / named if named else None)
    path = folder / "synthesis.yaml"
    given = load_yaml(path, SynthesisConfig) if path.exists() else SynthesisConfig()
    splits = _load_splits(folder, given, lexicon, language)
    if project is None:
        _refuse_other_scripts(folder, splits)
    config, absent = _with_voices(given, language)
    return SynthesisProject(project, language, lexicon, config, splits, absent)


def _with_voices(config: SynthesisConfig, language: str) -> tuple[SynthesisConfig, dict[str, str]]:
    """The config with voices, and why engines that could have been cast were not."""
    if config.voices:
        return config, {}
    offered, absent = offered_voices(config.engines or ENGINES, language)
    if not offered:
        raise SynthesisError("\n".join(["no engine can speak:", *(f"{name}: {why}" for name, why in absent.items())]))
    voices = [voice.model_dump() for voice in cast_voices(offered, config.seed)]
    return SynthesisConfig.model_validate({**config.model_dump(), "engines": (), "voices": voices}), absent


def _load_splits(folder: Path, config: SynthesisConfig, lexicon: Lexicon, language: str) -> dict[str, list[Sentence]]:
    """The sentences of train, validation and test, and of replay where there are general ones."""
    normalise = normaliser(language)
    path = _find(folder, config.sentences, "sentences")
    if path is None:
        remedy = "write sentences.txt there, one sentence a line, or name the file as `sentences:` in synthesis.yaml"
        raise SynthesisError(f"{folder} holds no sentences.jsonl and no sentences.txt; {remedy}")
    sentences = _read(path, "s", lexicon, language, normalise)
    speller = Speller(lexicon, language)
    _refuse_rows(path, sentences, ("train", "validation", "test", "final"), speller)
    splits = split_sentences(sentences, speller, config)
    if general := _find(folder, config.general, "general"):
        splits["replay"] = _read(general, "g", lexicon, language, normalise)
        _refuse_rows(general, splits["replay"], ("replay",), speller)
        # What is rehearsed in training may not be what is tested.
        domain = {normalise(s.text) for split, found in splits.items() if split != "replay" for s in found}
        if shared := [sentence for sentence in splits["replay"] if normalise(sentence.text) in domain]:
            listed = "\n".join(f"{general}: {s.id}: {s.text!r} is a sentence of the domain too" for s in shared)
            raise SynthesisError(f"{listed}\nremove them there")
    return splits


def _refuse_rows(path: Path, sentences: Sequence[Sentence], splits: Sequence[str], speller: Speller) -> None:
    """A split that the file's sentences cannot have, or other terms said than written, is a SynthesisError."""
    faults = []
    for sentence in sentences:
        if sentence.split not in (None, *splits):
            faults.append(
                f"{path}: {sentence.id}: split is {sentence.split}, but must be {' or '.join(splits)}; mend it"
            )
        said = speller.terms(sentence.spoken or sentence.text)
        if said != (written := speller.terms(sentence.text)):
            rule = f"but its text has {', '.join(written) or 'none'}; write terms in both alike"
            faults.append(f"{path}: {sentence.id}: spoken has the terms {', '.join(said) or 'none'}, {rule}")
    if faults:
        raise SynthesisError("\n".join(faults))


def _refuse_other_scripts(folder: Path, splits: Mapping[str, list[Sentence]]) -> None:
    """English voices would read what is not in Latin letters all the same."""
    letters = [letter for found in splits.values() for s in found for letter in s.text if letter.isalpha()]
    latin = sum(unicodedata.name(letter, "").startswith("LATIN") for letter in letters)
    if 2 * latin < len(letters):
        rule = "but without project.yaml the language is English"
        remedy = "write one with `language:`, such as `wertune init` makes"
        raise SynthesisError(f"{folder}: most letters of the sentences are not Latin, {rule}; {remedy}")


def _find(folder: Path, named: Path | None, stem: str) -> Path | None:
    """The file of sentences; None where none is named and neither of the usual ones is there."""
    if named is not None and not (folder / named).is_file():
        raise SynthesisError(f"{folder / named} does not exist; mend `{stem}:` in synthesis.yaml, or write the file")
    usual = [path for suffix in ("jsonl", "txt") if (path := folder / f"{stem}.{suffix}").is_file()]
    if named is None and len(usual) > 1:
        raise SynthesisError(f"{usual[0]} and {usual[1]} exist; name one of them as `{stem}:` in synthesis.yaml")
    return folder / named if named else next(iter(usual), None)


def _read(path: Path, letter: str, lexicon: Lexicon, language: str, normalise: Normalise) -> list[Sentence]:
    if path.suffix == ".jsonl":
        return load_sentences(path, language)
    return read_plain_sentences(path, letter, lexicon, normalise)
