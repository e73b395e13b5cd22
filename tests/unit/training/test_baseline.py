"""The untouched base keeps Whisper's own rules; what else it writes with the terms' help is kept by all it hangs on."""

from pathlib import Path

import pytest
import yaml

from wertune.base.config import DecodeConfig, load_project, with_overrides
from wertune.training.baseline import (
    Texts,
    Wanted,
    Way,
    _name,
    baseline_decode,
    baseline_texts,
    transcribe_with_base,
    ways_of,
)
from wertune.training.prepare import Prepared, prepare
from wertune.whisper.model import Whisper

ALL = (Way.PLAIN, Way.BOOSTED, Way.PROMPTED)


def test_nothing_of_the_domain_helps_the_base() -> None:
    decode = DecodeConfig(num_beams=4, term_boost=2.0, may_be_empty=True, batch_size=32)
    plain = baseline_decode(decode)
    assert (plain.term_boost, plain.may_be_empty) == (0.0, False)
    assert plain.model_copy(update={"term_boost": 2.0, "may_be_empty": True}) == decode


def _prepared(folder: Path, terms: tuple[str, ...], boost: float = 3.0) -> Prepared:
    (folder / "lexicon.yaml").write_text(yaml.safe_dump({"terms": [{"term": term} for term in terms]}))
    values = {"lexicon": "lexicon.yaml", "trial.decode.term_boost": boost, "trial.decode.max_new_tokens": 6}
    values["trial.decode.boost_floor"] = None  # a random model doubts all that it writes
    return prepare(folder, with_overrides(load_project(folder), values, "test"))


def test_there_are_as_many_ways_as_terms_allow(small_project: Path) -> None:
    assert ways_of(_prepared(small_project, ("CPF",))) == ALL
    assert ways_of(_prepared(small_project, ("CPF",), boost=0.0)) == (Way.PLAIN, Way.PROMPTED)
    assert ways_of(_prepared(small_project, ())) == (Way.PLAIN,)


def test_terms_change_what_is_written_in_the_other_ways_alone(small_project: Path) -> None:
    prepared = _prepared(small_project, ("CPF", "Majulah Package"), boost=20.0)
    written = transcribe_with_base(prepared, {"validation": ALL})["validation"]
    assert list(written) == list(ALL)
    assert len({tuple(texts) for texts in written.values()}) == 3
    assert transcribe_with_base(prepared, {"validation": (Way.PLAIN,)})["validation"][Way.PLAIN] == written[Way.PLAIN]


def test_a_clip_is_heard_once_for_all_ways(small_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard, encode = list[int](), Whisper.encode
    monkeypatch.setattr(Whisper, "encode", lambda self, f: heard.append(len(f)) or encode(self, f))
    transcribe_with_base(_prepared(small_project, ("CPF",)), {"validation": ALL})
    assert sum(heard) == 2


def test_what_is_kept_is_not_written_again(small_project: Path) -> None:
    prepared, asked = _prepared(small_project, ("CPF",)), list[Wanted]()

    def transcribe(prepared: Prepared, wanted: Wanted) -> Texts:
        asked.append({split: tuple(ways) for split, ways in wanted.items()})
        return {split: {way: [f"{split} {way}"] * 2 for way in ways} for split, ways in wanted.items()}

    baseline_texts(prepared, dict.fromkeys(("validation", "replay"), (Way.PLAIN,)), transcribe)
    texts = baseline_texts(prepared, {"validation": ALL}, transcribe)
    assert texts == {"validation": {way: [f"validation {way}"] * 2 for way in ALL}}
    assert baseline_texts(prepared, {"validation": ALL}, transcribe) == texts
    assert asked == [{"validation": (Way.PLAIN,)}, {"validation": (Way.BOOSTED, Way.PROMPTED)}]


def test_only_what_a_way_depends_on_makes_it_anew(small_project: Path) -> None:
    first, second = _prepared(small_project, ("CPF",)), _prepared(small_project, ("CPF", "HDB"))
    louder = _prepared(small_project, ("CPF",), boost=2.0)

    def changed(one: Prepared, other: Prepared) -> list[Way]:
        return [way for way in ALL if _name(one, "validation", way) != _name(other, "validation", way)]

    assert changed(first, second) == [Way.BOOSTED, Way.PROMPTED]
    assert changed(first, louder) == [Way.BOOSTED]
    assert len({_name(first, "validation", way) for way in ALL}) == 3


def test_a_project_that_has_a_folder_for_them_brings_its_texts_along(
    small_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(prepared: Prepared, wanted: Wanted) -> Texts:
        raise AssertionError(f"{wanted} is written again")

    shared = small_project / "baseline"
    shared.mkdir()
    monkeypatch.setenv("WERTUNE_CACHE", str(tmp_path / "first"))
    texts = baseline_texts(_prepared(small_project, ("CPF",)), {"validation": (Way.PLAIN,)})
    assert len(list(shared.iterdir())) == 1
    monkeypatch.setenv("WERTUNE_CACHE", str(tmp_path / "of_who_clones_it"))
    assert baseline_texts(_prepared(small_project, ("CPF",)), {"validation": (Way.PLAIN,)}, nobody) == texts
    # What is broken there is no text, and what another wrote there is kept apart.
    for each in shared.iterdir():
        each.write_text("[1, 2]")
    assert baseline_texts(_prepared(small_project, ("CPF",)), {"validation": (Way.PLAIN,)}) == texts
