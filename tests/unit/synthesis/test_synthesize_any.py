"""Speech for any project: voices cast, sentences as plain text, splits that share nothing, and the report of it."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from wertune.base.config import ConfigError, ProjectConfig, parse
from wertune.base.errors import SynthesisError
from wertune.base.text import Lexicon, Term, normaliser, said
from wertune.data.audio import Samples
from wertune.synthesis.advice import missing_steps
from wertune.synthesis.casting import cast_voices
from wertune.synthesis.config import SynthesisConfig, Voice
from wertune.synthesis.engine import Offer
from wertune.synthesis.engines import ENGINES, find_engine, offered_voices
from wertune.synthesis.plan import ClipPlan
from wertune.synthesis.project import SynthesisProject, load_synthesis_project
from wertune.synthesis.report import SynthesisReport, _terms_table
from wertune.synthesis.sentences import Sentence, Speller, read_plain_sentences, split_sentences
from wertune.synthesis.synthesize import plan_project, render, synthesize

DOMAIN = ("train", "validation", "test")
TERMS = ("CPF", "MediSave", "NEA")
LEXICON = Lexicon(terms=(Term(term="CPF"), Term(term="MediSave", spoken="meddy save"), Term(term="NEA", kind="agency")))
THIS = f"{__name__}:Tone"
PATTERNS = (
    "Tell me about {}.",
    "Who pays for {} now?",
    "I lost my {} letter.",
    "Is {} open today?",
    "We like {} best.",
)

offers = st.lists(st.sampled_from("abcdefghij"), max_size=8, unique=True).map(
    lambda names: [Offer(f"voice {name}", name, "free") for name in names]
)


class Tone:
    """Says everything as a tone, longer for longer texts; refuses what holds `unspeakable`."""

    speakers = ("ann", "ben", "cat", "dan", "eve")

    def offers(self, language: str) -> list[Offer]:
        return [Offer(f"the {name}", name, "free") for name in self.speakers] if language == "en" else []

    def speak(self, text: str, voice: str, speed: float) -> tuple[Samples, int]:
        if "unspeakable" in text:
            raise SynthesisError("cannot say that")
        seconds = np.arange(round(16_000 * (0.7 + 0.01 * len(text)))) / 16_000
        pitch_hz = 100 * (1 + self.speakers.index(voice.removeprefix("the ")))
        return (0.3 * np.sin(2 * np.pi * pitch_hz * seconds)).astype(np.float32), 16_000


class Hiss:
    """Says everything as a second of white noise."""

    def offers(self, language: str) -> list[Offer]:
        return []

    def speak(self, text: str, voice: str, speed: float) -> tuple[Samples, int]:
        return (0.1 * np.random.default_rng(0).standard_normal(16_000)).astype(np.float32), 16_000


@settings(max_examples=200)
@given(
    offered=st.dictionaries(st.sampled_from(["flite", "espeak", "festival", "piper"]), offers), seed=st.integers(0, 99)
)
def test_cast_voices_share_no_speaker_and_leave_no_split_silent(offered: dict[str, list[Offer]], seed: int) -> None:
    speakers = {offer.speaker for found in offered.values() for offer in found}
    if len(speakers) < 3:
        found = {0: "no speaker", 1: r"1 speaker \(", 2: r"2 speakers \("}[len(speakers)]
        with pytest.raises(SynthesisError, match=f"the engines have {found}.*each of three splits needs its own"):
            cast_voices(offered, seed)
        return
    voices = cast_voices(offered, seed)
    assert Counter((v.engine, v.name) for v in voices) == Counter((e, o.name) for e, f in offered.items() for o in f)
    by_split = {split: {v.speaker for v in voices if v.split == split} for split in DOMAIN}
    assert all(by_split.values())
    assert not any(by_split[left] & by_split[right] for left, right in combinations(DOMAIN, 2))
    assert voices == cast_voices(offered, seed)
    SynthesisConfig(voices=voices)  # whose own rules hold too


def test_engines_speak_alike_however_many_voices_they_have() -> None:
    many = [Offer(f"v{i}", f"s{i}", "free") for i in range(20)]
    few = [Offer(f"w{i}", f"t{i}", "free") for i in range(3)]
    weights = Counter[tuple[str, str]]()
    for voice in cast_voices({"espeak": many, "flite": few}, 0):
        weights[voice.engine, voice.split] += voice.weight
    assert all(weight == pytest.approx(1, abs=1e-4) for weight in weights.values())


def split_or_none(sentences: list[Sentence], config: SynthesisConfig) -> dict[str, list[Sentence]] | None:
    try:
        return split_sentences(sentences, Speller(LEXICON), config)
    except SynthesisError:
        return None


def test_a_small_test_split_grows_until_it_has_every_term() -> None:
    """Of 40 terms in four sentences each; a share of them would be 26 sentences."""
    lexicon = Lexicon(terms=tuple(Term(term=f"T{n}") for n in range(40)))
    sentences = [Sentence(id=f"s{k}-{n}", text=f"Line {k} is on T{n}.") for n in range(40) for k in range(4)]
    config = SynthesisConfig(missing_term="stop", voices=cast_voices({"flite": Tone().offers("en")}, 0))
    splits = split_sentences([*sentences, Sentence(id="plain", text="Nothing.")], Speller(lexicon), config)
    assert {split: len(found) for split, found in splits.items()} == {"train": 120, "validation": 1, "test": 40}


@settings(max_examples=100)
@given(
    patterns=st.lists(st.sampled_from(range(40)), min_size=1, max_size=40, unique=True),
    templates=st.integers(0, 6),
    seed=st.integers(0, 99),
)
def test_splits_share_no_voice_no_sentence_and_no_template(patterns: list[int], templates: int, seed: int) -> None:
    """Whatever the sentences: all three splits hold some and share none, or it is said what is missing."""
    natural = [Sentence(id=f"s{n}", text=f"Line {n} is on {TERMS[n % 3]}.") for n in patterns]
    templated = [
        Sentence(id=f"t{k}-{term}", text=f"Page {k} has {term}.", kind="template", template=f"t{k}")
        for k in range(templates)
        for term in TERMS
    ]
    config = SynthesisConfig(seed=seed, voices=cast_voices({"flite": Tone().offers("en")}, seed))
    splits = split_or_none(natural + templated, config)
    if splits is None:
        assert len(natural) < 12
        return
    plans = plan_project(SynthesisProject(None, "en", LEXICON, config, splits, {}))
    for left, right in combinations(DOMAIN, 2):
        for key in (
            lambda p: p.voice.speaker,
            lambda p: p.sentence.text,
            lambda p: p.sentence.template or p.sentence.id,
        ):
            assert not {key(p) for p in plans if p.split == left} & {key(p) for p in plans if p.split == right}
    assert {plan.sentence for plan in plans} == {*natural, *templated}
    assert {plan.split for plan in plans} == set(DOMAIN)


@pytest.mark.parametrize(
    ("term", "language", "spoken"),
    [
        ("CPF", "en", "C P F"),
        ("NEA card", "en", "N E ay card"),
        ("NEA", "de", "N E A"),
        ("TÜV", "de", "T Ü V"),
        ("НДС", "ru", "Н Д С"),
        ("H2O", "en", "H2O"),
        ("MediSave", "en", "MediSave"),
        ("CLINIC", "en", "CLINIC"),
        ("Plan A", "en", "Plan A"),
    ],
)
def test_an_abbreviation_without_a_spoken_form_is_spelt(term: str, language: str, spoken: str) -> None:
    assert said(Term(term=term), language) == spoken
    assert said(Term(term=term, spoken="as said"), language) == "as said"


def read(tmp_path: Path, text: str) -> list[Sentence]:
    path = tmp_path / "sentences.txt"
    path.write_text(text, encoding="utf-8")
    return read_plain_sentences(path, "s", LEXICON, normaliser("en"))


def test_plain_text_is_a_sentence_a_line(tmp_path: Path) -> None:
    found = read(tmp_path, "\ufeff# greetings\n\n  Hello there. \nAsk {agency}.\nAsk {term}!\nAsk CPF.\n")
    assert [(s.id, s.text, s.template) for s in found] == [
        ("s0003", "Hello there.", None),
        ("s0004-001", "Ask NEA.", "s0004"),
        ("s0005-002", "Ask MediSave!", "s0005"),  # the other two are said already
        ("s0006", "Ask CPF.", None),
    ]


def test_all_faults_of_plain_text_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(SynthesisError) as caught:
        read(tmp_path, "Fine.\n...\nfine\nAsk {tax}.\n{term} or {term}\n")
    lines = str(caught.value).splitlines()
    assert [line.split(".txt:")[1][:2] for line in lines] == ["2:", "3:", "4:", "5:"]
    assert "has no word" in lines[0]
    assert "stands in line 1 already" in lines[1]
    assert "take one of {agency}, {term}" in lines[2]
    with pytest.raises(SynthesisError, match="holds no sentence"):
        read(tmp_path, "# nothing\n")
    (tmp_path / "sentences.txt").write_text("Ask {term}.")
    with pytest.raises(SynthesisError, match="no term; write lexicon"):
        read_plain_sentences(tmp_path / "sentences.txt", "s", Lexicon(terms=()), normaliser("en"))


@settings(max_examples=100)
@given(
    lines=st.lists(st.sampled_from([*PATTERNS, "Ask {term}.", "Call {agency}.", "Ask CPF.", "call nea"]), unique=True)
)
def test_plain_text_never_holds_a_sentence_twice(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    filled = [line.replace("{}", "MediSave") for line in lines] + ["The end."]
    found = read(tmp_path_factory.mktemp("plain"), "\n".join(filled))
    keys = Counter(map(normaliser("en"), (sentence.text for sentence in found)))
    assert set(keys.values()) == {1}
    assert len({sentence.id for sentence in found}) == len(found)


def folder_of(path: Path, sentences: str, synthesis: str = f"engines: ['{THIS}']\n") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "lexicon.yaml").write_text(
        "terms: [{term: CPF}, {term: MediSave, spoken: meddy save}, {term: NEA}, {term: HDB}]"
    )
    (path / "sentences.txt").write_text(sentences)
    (path / "synthesis.yaml").write_text(synthesis)
    return path


TEXTS = "\n".join(pattern.format(term) for term in TERMS for pattern in PATTERNS)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, SynthesisReport, list[str]]]:
    """A folder of three files, spoken by the engine above in a process of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        patch.setattr("sys.stderr", StringIO())  # no terminal, whoever runs the tests
        folder = folder_of(tmp_path_factory.mktemp("any") / "my domain", TEXTS)
        (folder / "general.txt").write_text("The kettle is boiling.\nIt rains again.\n")
        heard: list[str] = []
        yield folder, synthesize(folder, processes=1, say=heard.append), heard


def rows(folder: Path, split: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "manifests" / f"{split}.jsonl").read_text().splitlines()]


def test_a_folder_of_words_becomes_manifests_that_share_nothing(
    spoken: tuple[Path, SynthesisReport, list[str]],
) -> None:
    folder, report, _ = spoken
    for left, right in combinations(DOMAIN, 2):
        for key in ("speaker", "sentence", "audio_filepath", "text"):
            assert not {row[key] for row in rows(folder, left)} & {row[key] for row in rows(folder, right)}
    assert {row["text"] for split in DOMAIN for row in rows(folder, split)} == set(TEXTS.splitlines())
    assert len(rows(folder, "replay")) == 2
    assert all((folder / "manifests" / str(row["audio_filepath"])).is_file() for row in rows(folder, "test"))
    assert {row["voice"]: row["clips"] for row in report.voices} == Counter(
        row["voice"] for split in (*DOMAIN, "replay") for row in rows(folder, split)
    )


def test_the_report_names_what_is_missing(spoken: tuple[Path, SynthesisReport, list[str]]) -> None:
    folder, report, heard = spoken
    lacks = {row["term"]: row["lacks"] for row in report.terms}
    assert lacks == {"CPF": "", "MediSave": "", "NEA": "", "HDB": "stands in no sentence"}
    written = (folder / "manifests" / "synthesis_report.md").read_text()
    assert "Sentences are missing for 1 of 4 terms: HDB (stands in no sentence)." in written
    assert "C P F *" in written
    assert written in heard
    stored = json.loads((folder / "manifests" / "synthesis_report.json").read_text())
    assert {row["term"]: sum(row["clips"].values()) for row in stored["terms"]} == Counter(
        term for split in DOMAIN for row in rows(folder, split) for term in row["terms"]
    ) | {"HDB": 0}
    assert {row["split"]: row["clips"] for row in stored["splits"]}["test"] == len(rows(folder, "test"))


def test_what_project_yaml_must_hold_is_said_and_is_a_project(spoken: tuple[Path, SynthesisReport, list[str]]) -> None:
    folder, report, heard = spoken
    advice = next(text for text in heard if "write this there" in text)
    import yaml

    project = parse(ProjectConfig, yaml.safe_load(advice.split("\n\n")[1]), "advice")
    assert project.name == "my_domain"
    assert sum("`wertune init NAME` makes one" in text for text in heard) == 2  # search.yaml and the policy
    assert not any("sg_gov" in text for text in heard)
    assert heard[0] == "language: en (no project.yaml says another)"
    assert project.data.replay == Path("manifests/replay.jsonl")
    assert not any("project.yaml" in step for step in missing_steps(folder, project, report.manifests))
    other = project.model_copy(
        update={"data": project.data.model_copy(update={"test": Path("t.jsonl"), "replay": None})}
    )
    steps = "\n".join(missing_steps(folder, other, report.manifests))
    assert "there is no replay" not in steps
    without = {split: path for split, path in report.manifests.items() if split != "replay"}
    assert "there is no replay" in "\n".join(missing_steps(folder, other, without))
    assert "data.replay is not given; add `replay: manifests/replay.jsonl`" in steps
    assert "data.test is t.jsonl, which is not what was spoken" in steps


def test_only_what_is_missing_is_spoken_again_and_sounds_the_same(
    spoken: tuple[Path, SynthesisReport, list[str]],
) -> None:
    folder, _, _ = spoken
    clips = {path: path.read_bytes() for path in (folder / "audio").rglob("*.opus")}
    kept, gone = sorted(clips)[0], sorted(clips)[-1]
    kept.write_bytes(clips[gone])  # to be told from one that is spoken anew
    gone.unlink()
    heard: list[str] = []
    synthesize(folder, processes=1, say=heard.append)
    assert f"clips to speak: 1, there already: {len(clips) - 1}; processes: 1" in heard
    assert gone.read_bytes() == clips[gone] == kept.read_bytes()
    kept.write_bytes(clips[kept])
    heard.clear()
    synthesize(folder, processes=1, say=heard.append)
    assert f"clips to speak: 0, there already: {len(clips)}; processes: 0" in heard


def test_logs_hear_of_each_tenth(spoken: tuple[Path, SynthesisReport, list[str]]) -> None:
    folder, _, heard = spoken
    count = len(list((folder / "audio").rglob("*.opus")))
    told = [text for text in heard if text.startswith("clips: ")]
    assert told == [f"clips: {min(count, n * -(-count // 10))} of {count}" for n in range(1, len(told) + 1)]
    assert 8 <= len(told) <= 10
    assert told[-1] == f"clips: {count} of {count}"


@pytest.mark.parametrize("seed", range(4))
def test_a_channel_is_heard_in_the_clip(seed: int) -> None:
    """Of speech with as much power at every frequency."""
    voice = Voice(id="v", engine=f"{__name__}:Hiss", name="v", speaker="v", split="train", licence="free")
    clean = ClipPlan("train", Sentence(id="s", text="Hello."), "Hello.", (), voice, 1.0, "clean", None, seed, 14.0)
    plain = render(clean)
    told = render(replace(clean, channel="telephone"))
    assert _share_above(plain, 3400) > 0.5
    assert _share_above(told, 3400) < 0.05
    assert _share_above(told, 4100) < 0.001
    noise = render(replace(clean, channel="noisy", snr_db=12.0)) - plain
    assert 10 * np.log10(np.mean(plain**2) / np.mean(noise**2)) == pytest.approx(12, abs=0.5)


def _share_above(samples: Samples, hertz: float) -> float:
    power = np.abs(np.fft.rfft(samples)) ** 2
    return float(power[np.fft.rfftfreq(len(samples), 1 / 16_000) > hertz].sum() / power.sum())


def test_manifests_of_recordings_are_not_written_over(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, TEXTS)
    (folder / "manifests").mkdir()
    line = '{"audio_filepath": "a.wav", "text": "Hello.", "speaker": "ann"}\n'
    (folder / "manifests" / "test.jsonl").write_text(line)
    with pytest.raises(SynthesisError, match=r"test\.jsonl would be written over"):
        synthesize(folder, processes=1)
    assert (folder / "manifests" / "test.jsonl").read_text() == line
    assert not (folder / "audio").exists()


def test_all_clips_that_fail_are_named_and_the_others_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    folder = folder_of(tmp_path, TEXTS + "\nThis is unspeakable.\n")
    with pytest.raises(SynthesisError, match="s0016: cannot say that") as caught:
        synthesize(folder, processes=1)
    assert "no manifest was written, and what was spoken is kept" in str(caught.value)
    assert not (folder / "manifests").exists()
    assert len(list((folder / "audio").rglob("*.opus"))) > 15


@pytest.mark.parametrize(
    ("synthesis", "error", "message"),
    [
        ("engines: [flit]", ConfigError, "engine is 'flit', but must be one of flite, "),
        (
            "engines: [espeak-ng]",
            ConfigError,
            "'espeak-ng', but must be one of flite, espeak, festival, hibari, kokoro",
        ),
        ("engines: ['no.such:Engine']", SynthesisError, "no.such:Engine: engine no.such:Engine cannot be imported"),
        ("engines: ['pathlib:Path']", SynthesisError, "has no offers and no speak"),
        ("sentences: other.txt", SynthesisError, r"other\.txt does not exist; mend `sentences:`"),
    ],
)
def test_what_cannot_speak_is_named(tmp_path: Path, synthesis: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_synthesis_project(folder_of(tmp_path, TEXTS, synthesis))


@pytest.mark.parametrize("page", ["README.md", "docs/howto/words-first.md"])
def test_pages_name_the_engines_as_synthesis_yaml_does(page: str) -> None:
    text = (Path(__file__).resolve().parents[3] / page).read_text(encoding="utf-8")
    assert [name for name in ENGINES if f"`{name}`" not in text] == []


def test_sentences_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(SynthesisError, match=r"write sentences\.txt there, one sentence a line"):
        load_synthesis_project(tmp_path)
    folder_of(tmp_path, "Ask {term}.\nCall {term}.\nLook for {term}.\n")
    with pytest.raises(SynthesisError, match="no sentence is left for validation, test"):
        load_synthesis_project(tmp_path)


def test_a_replay_sentence_of_the_domain_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, TEXTS)
    (folder / "general.txt").write_text("It rains.\nis CPF open today\n")
    with pytest.raises(SynthesisError, match="g0002: 'is CPF open today' is a sentence of the domain too"):
        load_synthesis_project(folder)


def test_engines_that_are_missing_or_speak_no_such_language_are_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    offered, absent = offered_voices(["flite", "espeak", THIS], "en")
    assert list(offered) == [THIS]
    assert "apt-get install flite" in absent["flite"]
    assert "apt-get install espeak-ng" in absent["espeak"]
    assert offered_voices([THIS], "de") == ({}, {THIS: "has no voice for language de"})
    assert find_engine(THIS) is find_engine(THIS)
    with pytest.raises(SynthesisError, match=r"engine is os\.path:join, but must be a class that is made without arg"):
        find_engine("os.path:join")


def test_sentences_of_another_script_want_a_language(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "\n".join(f"我想查询公积金{letter}。" for letter in "账户利息局提取"))
    with pytest.raises(SynthesisError, match=r"not Latin, but without project\.yaml the language is English; write"):
        load_synthesis_project(folder)


def test_terms_are_covered_where_no_blanks_stand_between_words(tmp_path: Path) -> None:
    lexicon = Lexicon(terms=(Term(term="公积金", spoken="公 积 金"), Term(term="公积金局"), Term(term="CPF")))
    speller = Speller(lexicon, "zh")
    assert speller.terms("请问公积金局和公积金在CPF吗？") == ("公积金局", "公积金", "CPF")
    assert speller.spoken("我的公积金在公积金局，CPF。") == "我的公 积 金在公积金局，C P F。"
    (tmp_path / "sentences.txt").write_text("请问{term}怎么申请？\n公积金局在哪里？\n", encoding="utf-8")
    found = read_plain_sentences(tmp_path / "sentences.txt", "s", lexicon, normaliser("zh"))
    assert [speller.terms(each.text) for each in found] == [("公积金",), ("公积金局",), ("CPF",), ("公积金局",)]
    counts = {"clips": dict.fromkeys(DOMAIN, 1), "sentences": dict.fromkeys(DOMAIN, 1)}
    rows = [{"term": term, "spoken": term, "spelt": False, **counts} for term in ("公积金", "CPF")]
    assert len({cell_len(line) for line in _terms_table(rows).splitlines()}) == 1
