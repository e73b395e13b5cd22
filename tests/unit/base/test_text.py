"""Texts as they are scored, and the terms that are found in them."""

import unicodedata
from collections import Counter
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from wertune.base import text as text_module
from wertune.base.config import LANGUAGES
from wertune.base.errors import ConfigError
from wertune.base.kept import Kept
from wertune.base.text import (
    UNSPACED_LANGUAGES,
    Lexicon,
    Normaliser,
    Term,
    TermFinder,
    closed_up,
    invisible,
    joined,
    label_text,
    load_lexicon,
    normaliser,
    normaliser_version,
    term_pattern,
    visible,
)

ENGLISH = normaliser("en")
TERMS = ("CPF", "MediShield", "MediShield Life", "GST Voucher")
FILLERS = ("please", "check", "the", "form,", "Today.", "gstvoucher", "cpfs")


def _lexicon_file(folder: Path, text: str) -> Path:
    path = folder / "lexicon.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "scored"),
    [
        ("Colour, it's MEDISAVE!", "color it is medisave"),
        ("twenty-five dollars", "$25"),
        ("Mr. Tan won't [laughs] come", "mister tan will not come"),
        ("", ""),
    ],
)
def test_english_is_scored_in_one_spelling(text: str, scored: str) -> None:
    assert ENGLISH(text) == scored


def test_other_languages_keep_their_spelling() -> None:
    assert normaliser("ms")("Colour, twenty-five!") == "colour twenty five"


def test_dots_alone_are_not_a_word() -> None:
    assert ENGLISH("well ... yes") == "well yes"
    assert normaliser("zh")("...") == ""


@given(st.text(), st.sampled_from(["en", "ms"]))
def test_every_scored_word_has_a_letter_or_a_digit(text: str, language: str) -> None:
    scored = normaliser(language)(text)
    assert scored == " ".join(scored.split())
    assert all(any(map(str.isalnum, word)) for word in scored.split())


def test_the_normaliser_is_named_with_its_version() -> None:
    assert normaliser_version("en") == f"whisper-normalizer {version('whisper-normalizer')} english"
    assert normaliser_version("ta") == f"whisper-normalizer {version('whisper-normalizer')} basic"


def test_terms_are_found_whatever_their_case_and_commas() -> None:
    assert TermFinder(TERMS, ENGLISH).find("My cpf, and the gst VOUCHER!") == {"CPF": 1, "GST Voucher": 1}


def test_a_term_inside_a_longer_word_is_not_found() -> None:
    assert TermFinder(["CPF"], ENGLISH).find("cpfs xcpf") == {}


def test_the_longest_match_wins() -> None:
    finder = TermFinder(["MediShield", "MediShield Life"], ENGLISH)
    assert finder.find("MediShield Life covers you") == {"MediShield Life": 1}
    assert finder.find("MediShield covers life") == {"MediShield": 1}


def test_a_term_said_again_and_again_counts_each_time() -> None:
    assert TermFinder(["CPF"], ENGLISH).find("CPF CPF, CPF") == {"CPF": 3}


def test_a_term_is_no_pattern() -> None:
    assert TermFinder(["a.c", "b+"], str).find("abc bb a.c b+") == {"a.c": 1, "b+": 1}


def test_no_terms_are_found_where_none_are_listed() -> None:
    assert TermFinder([], ENGLISH).find("CPF") == {}


@pytest.mark.parametrize("text", ["", "...", "CPF"])
def test_a_term_without_a_letter_is_never_found(text: str) -> None:
    assert TermFinder(["...", "!"], ENGLISH).find(text) == {}


@given(st.lists(st.sampled_from(TERMS + FILLERS)))
def test_each_term_is_counted_as_often_as_it_stands_there(parts: list[str]) -> None:
    assert TermFinder(TERMS, ENGLISH).find(" ".join(parts)) == Counter(part for part in parts if part in TERMS)


def test_a_lexicon_gives_its_terms_as_written(tmp_path: Path) -> None:
    path = _lexicon_file(tmp_path, "terms:\n- {term: CPF, spoken: see pee eff}\n- {term: 4D, spoken: four dee}\n")
    assert load_lexicon(path).written == ("CPF", "4D")


def test_a_project_without_a_lexicon_has_no_terms() -> None:
    assert load_lexicon(None) == Lexicon(terms=())


def test_a_term_listed_twice_is_refused_whatever_its_case(tmp_path: Path) -> None:
    path = _lexicon_file(tmp_path, "terms:\n- {term: CPF, spoken: a}\n- {term: cpf, spoken: b}\n")
    with pytest.raises(ConfigError) as caught:
        load_lexicon(path)
    assert str(path) in str(caught.value)
    assert "terms listed twice: cpf; keep one entry for each" in str(caught.value)


def test_all_faults_of_a_lexicon_come_at_once(tmp_path: Path) -> None:
    path = _lexicon_file(tmp_path, "terms:\n- {spoken: c}\n- {term: '', spoken: b}\n- {term: a, spoken: b, kin: c}\n")
    with pytest.raises(ConfigError) as caught:
        load_lexicon(path)
    missing, empty, unknown = str(caught.value).splitlines()
    assert missing == f"{path}: terms.0.term is missing; add it"
    assert empty.startswith(f"{path}: terms.1.term is '', but must have at least 1 character")
    assert "at least 1 character" in empty
    assert unknown == f"{path}: terms.2.kin is not a known key; remove it or mend its spelling"


def test_a_missing_lexicon_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lexicon\.yaml does not exist"):
        load_lexicon(tmp_path / "lexicon.yaml")


def test_a_term_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Term(term="CPF", spoken="see pee eff").term = "GST"  # type: ignore[misc]


# A lexicon in each script that puts no blank between words, and words around it.
UNSPACED = {
    "zh": (("公积金", "公积金局", "社保"), ("我想", "查询", "账户。", "CPF", "谢谢,")),
    "ja": (("マイナンバー", "マイナンバーカード", "年金"), ("を", "申請", "したい。", "NHK", "ー")),
    "th": (("กองทุน", "กองทุนสำรอง", "ภาษี"), ("ฉัน", "ต้องการ", "ตรวจสอบ", "CPF", "น้ำ")),
    "lo": (("ພາສີ", "ບຳນານ"), ("ຂ້ອຍ", "ຕ້ອງການ", "ATM")),
    "my": (("အခွန်", "ပင်စင်"), ("ကျွန်တော်", "လိုချင်", "CPF")),
    "km": (("ពន្ធ", "សោធន"), ("ខ្ញុំ", "ចង់", "ATM")),
}


@pytest.mark.parametrize("language", UNSPACED)
@settings(max_examples=25)
@given(data=st.data())
def test_a_term_is_found_where_no_blanks_stand_between_words(language: str, data: st.DataObject) -> None:
    """As often as it stands there, whether people put blanks or not; and as often where it is written, case and all."""
    terms, fillers = UNSPACED[language]
    parts = data.draw(st.lists(st.sampled_from([*terms, *fillers])))
    for blank in ("", " "):
        text = blank.join(parts)
        expected = Counter(part for part in parts if part in terms)
        assert TermFinder(terms, normaliser(language)).find(text) == expected
        assert Counter(term_pattern(terms).findall(text)) == expected


@pytest.mark.parametrize("language", UNSPACED)
@settings(max_examples=25)
@given(data=st.data())
def test_words_of_scripts_without_blanks_are_letters(language: str, data: st.DataObject) -> None:
    """Each with its marks; blanks that people put between them change nothing, and Latin words stay whole."""
    terms, fillers = UNSPACED[language]
    parts = data.draw(st.lists(st.sampled_from([part for part in (*terms, *fillers) if not part.isascii()])))
    scored = normaliser(language)("CPF".join(parts))
    assert scored == normaliser(language)(" CPF ".join(parts))
    for word in scored.split():
        assert word == "cpf" or sum(not unicodedata.category(sign).startswith("M") for sign in word) == 1
    assert closed_up(scored).replace(" ", "") == scored.replace(" ", "")


@pytest.mark.parametrize(
    ("language", "text", "scored", "closed"),
    [
        ("zh", "我的CPF账户，谢谢！", "我 的 cpf 账 户 谢 谢", "我的 cpf 账户谢谢"),
        ("th", "ฉัน 3 แก้ว", "ฉั น 3 แ ก้ ว", "ฉัน 3 แก้ว"),
        ("ta", "எனது கணக்கு", "எனது கணக்கு", "எனது கணக்கு"),
        ("hi", "मुझे आधार", "मुझे आधार", "मुझे आधार"),
        ("en", "申请 CPF", "申 请 cpf", "申请 cpf"),
    ],
)
def test_other_scripts_keep_their_marks(language: str, text: str, scored: str, closed: str) -> None:
    assert normaliser(language)(text) == scored
    assert closed_up(scored) == closed


@pytest.mark.parametrize(
    ("term", "text", "count"),
    [
        ("CPF", "我的CPF账户", 1),
        ("CPF", "我的SCPFS账户 CPFs xCPF", 0),
        ("公积金", "CPF公积金CPF", 1),
        ("ก", "กา ก่า", 1),  # the second has a mark that makes it another letter
        ("கணக", "கணக்கு", 0),
        ("a.c", "abc a.c", 1),
    ],
)
def test_a_written_term_ends_where_its_word_ends(term: str, text: str, count: int) -> None:
    assert len(term_pattern([term]).findall(text)) == count


def test_languages_without_blanks_are_whispers() -> None:
    assert set(LANGUAGES) >= UNSPACED_LANGUAGES


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [
        (["My CPF.", "", "Is it there?"], "My CPF. Is it there?"),
        (["我的公积金。", "在哪里?"], "我的公积金。在哪里?"),
        (["我的公积金", "在哪里"], "我的公积金在哪里"),
        (["我的", "CPF", "在哪里"], "我的 CPF 在哪里"),
        (["こんにちは。", "ありがとう"], "こんにちは。ありがとう"),
        (["สวัสดี", "ครับ"], "สวัสดีครับ"),
        (["", ""], ""),
    ],
)
def test_pieces_are_joined_as_their_script_joins_words(pieces: list[str], whole: str) -> None:
    assert joined(pieces) == whole


@given(st.lists(st.text(alphabet="ab 公積。", max_size=5), max_size=5))
def test_joining_loses_no_sign_and_adds_blanks_alone(pieces: list[str]) -> None:
    assert joined(pieces).replace(" ", "") == "".join(pieces).replace(" ", "")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_what_a_text_became_is_kept(language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["Colour, it's MEDISAVE!", "", "...", "\u4e2d\u592e CPF", "Colour, it's MEDISAVE!"]
    expected = [Normaliser(language)(text) for text in texts]
    cleaned: list[str] = []
    clean = Normaliser._clean
    monkeypatch.setattr(Normaliser, "_clean", lambda self, text: (cleaned.append(text), clean(self, text))[1])
    for _ in range(2):
        with closing(Kept(tmp_path)) as kept:
            again = Normaliser(language)  # as in another process
            assert [again.known(text, kept) for text in texts] == expected
            assert [again(text) for text in texts] == expected
    assert cleaned == texts[:4]


def test_other_code_works_out_a_text_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Kept(tmp_path)) as kept:
        assert Normaliser("en").known("Colour", kept) == "color"
        assert Normaliser("ms").known("Colour", kept) == "colour"
        monkeypatch.setattr(text_module, "code_digest", lambda *_: "other")
        monkeypatch.setattr(Normaliser, "_clean", lambda *_: "other")
        assert Normaliser("en").known("Colour", kept) == "other"


def test_no_more_texts_are_known_than_memory_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "MOST_KNOWN", 3)
    normalise = Normaliser("en")
    assert [normalise(f"number {number}") for number in range(9)] == [ENGLISH(f"number {n}") for n in range(9)]
    assert len(normalise._known) <= 3


@pytest.mark.parametrize("language", ["en", "te", "ms"])
@pytest.mark.parametrize(
    "hidden", ["\u00ad", "\u200b", "\u2060", "\ufeff", "\u200e", "\u202a", "\u2066", "\u200c", "\u200d"]
)
def test_what_nobody_sees_makes_no_word_another(language: str, hidden: str) -> None:
    assert normaliser(language)(f"re{hidden}ply {hidden}by{hidden} Friday") == normaliser(language)("reply by Friday")


def test_a_label_is_what_is_seen() -> None:
    assert label_text("\ufeffMy\u00a0SRS\u00ad  a\u0301", "en") == " My SRS \u00e1"
    assert label_text("می\u200cخواهم", "fa") == " می\u200cخواهم"  # a joiner is a letter's business there
    assert invisible("a\u200b\ufeff\u200b") == ["U+200B ZERO WIDTH SPACE", "U+FEFF ZERO WIDTH NO-BREAK SPACE"]
    assert not invisible("می\u200cخواهم")


@given(st.text(alphabet=st.characters(codec="ascii"), max_size=40))
def test_plain_text_stays_but_for_its_blanks(text: str) -> None:
    assert visible(text).split() == text.split()
    assert visible(visible(text)) == visible(text)


def test_terms_that_the_normaliser_makes_one_are_told_apart_as_they_are_written() -> None:
    finder = TermFinder(["C++", "C#", "CPF", ".NET", "A*"], ENGLISH)
    assert finder.as_written == ("C++", "C#", ".NET", "A*")
    said = "Vitamin C is no language; c++ and C# are. An A in maths is no A*: the net, not .NET. C++ for CPF"
    assert finder.find(said) == Counter({"C++": 2, "C#": 1, "A*": 1, ".NET": 1, "CPF": 1})
    assert finder.words == {"cpf"}


def test_a_term_that_is_one_with_another_only_beside_it_is_found_by_its_words_alone() -> None:
    assert TermFinder(["e-Services"], ENGLISH).as_written == ()
    both = TermFinder(["e-Services", "E services"], ENGLISH)
    assert both.find("the E services and e-Services") == Counter({"e-Services": 1, "E services": 1})


@pytest.mark.parametrize(
    ("term", "fault"),
    [("Sing\u200bpass", "holds U\\+200B ZERO WIDTH SPACE, which nobody sees"), ("<|endoftext|>", "Whisper's own")],
)
def test_a_term_that_nobody_could_find_is_refused(tmp_path: Path, term: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        load_lexicon(_lexicon_file(tmp_path, f"terms: [{{term: {term!r}}}]".replace("'", '"')))


@pytest.mark.parametrize(
    ("terms", "text"),
    [(("\u00b5-law", "\u00b5 law"), "the \u03bc-law codec"), (("S++", "S"), "\u017f++"), (("C++", "C"), "c++")],
)
def test_a_term_as_written_is_found_however_its_letters_fold(terms: tuple[str, ...], text: str) -> None:
    """`re` takes the micro sign for the Greek letter, and a long s for an s."""
    assert TermFinder(terms, normaliser("en")).find(text) == {terms[0]: 1}


@pytest.mark.parametrize(
    "written", ["Cafe\u0301 Royal", "Caf\u00e9  Royal", " Caf\u00e9 Royal ", "Caf\u00e9\u00a0Royal", "Caf\u00e9\nRoyal"]
)
def test_a_term_is_what_labels_have_of_it(written: str) -> None:
    assert Term(term=written).term == "Caf\u00e9 Royal"
    assert Term(term="x", aliases=(written,)).aliases == ("Caf\u00e9 Royal",)


def test_two_ways_to_write_one_term_are_one() -> None:
    with pytest.raises(ValidationError, match="terms listed twice: caf\u00e9"):
        Lexicon(terms=(Term(term="Cafe\u0301"), Term(term="Caf\u00e9")))
    with pytest.raises(ValidationError, match=r"'kids start' is a name of two terms: A, B"):
        Lexicon(terms=(Term(term="A", aliases=("Kid's Start",)), Term(term="B", aliases=("kids start",))))
    with pytest.raises(ValidationError, match="is blank; name a word that people say"):
        Term(term=" \u00a0 ")
    assert len(Lexicon(terms=(Term(term="C"), Term(term="C++"))).terms) == 2
