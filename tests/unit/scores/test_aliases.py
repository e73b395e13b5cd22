"""Aliases written as their terms: what differs in blanks, dots, hyphens or case alone, and what the lexicon names."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from wertune.base.text import Lexicon, Term, TermFinder, normaliser
from wertune.scores.aliases import alias_writer

TERMS = ("ElderShield", "CPF", "MOM", "MediShield", "MediShield Life", "GST Voucher", "S Pass", "CorpPass", "KidSTART")


def _lexicon(*terms: str, **aliases: tuple[str, ...]) -> Lexicon:
    named = tuple(Term(term=term, aliases=others) for term, others in aliases.items())
    return Lexicon(terms=(*(Term(term=term) for term in terms), *named))


WRITE = alias_writer(_lexicon(*TERMS))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("my elder shield, please", "my ElderShield, please"),
        ("Elder-Shield and elder.shield", "ElderShield and ElderShield"),
        ("eldershield", "ElderShield"),
        ("Corp Pass or corp-pass", "CorpPass or CorpPass"),
        ("the C.P.F. is low", "the CPF is low"),
        ("the C. P. F. is low", "the CPF is low"),
        ("C P F, C-P-F's", "CPF, CPF's"),
        ("at the C.P.F.", "at the CPF."),
        ("medi shield life and medi shield", "MediShield Life and MediShield"),
        ("G.S.T. voucher", "GST Voucher"),
        ("kid start", "KidSTART"),
        ("an S-Pass", "an S Pass"),
    ],
)
def test_a_form_becomes_its_term(text: str, written: str) -> None:
    assert WRITE(text) == written


@pytest.mark.parametrize(
    "text",
    [
        "my mom said so",
        "Mom said m o m",
        "my cpf",
        "the elder. Shield him",
        "he passed the children's pass on",
        "C P Fs",
        "xC.P.F.",
        "welder shields",
        "elder  shield",
        "MediShield Life of CPF",
        "",
    ],
)
def test_what_is_no_form_of_a_term_stays(text: str) -> None:
    assert WRITE(text) == text


def test_the_lexicons_own_aliases_count_too() -> None:
    write = alias_writer(_lexicon("CPF", SERS=("surse", "S-E-R-Z"), CHAS=("chass card",)))
    assert write("Surse, SERZ and sers for a Chass-card") == "SERS, SERS and sers for a CHAS"
    assert write("surses serz") == "surses serz"


def test_a_term_stays_where_another_term_differs_from_it_in_a_blank_alone() -> None:
    write = alias_writer(_lexicon("CorpPass", "Corp Pass"))
    assert write("CorpPass, corp pass, Corp-Pass") == "CorpPass, Corp Pass, CorpPass"


@pytest.mark.parametrize(("term", "text"), [("公积金", "我的公 积 金"), ("kilo", "a \u212ai-lo"), ("info", "ınfo")])
def test_other_scripts_and_odd_letters_are_no_error(term: str, text: str) -> None:
    assert alias_writer(_lexicon(term))(text).endswith(term)


def test_without_terms_every_text_stays() -> None:
    assert alias_writer(_lexicon())("c.p.f.") == alias_writer(_lexicon("."))("c.p.f.") == "c.p.f."


def test_a_name_stands_for_one_term() -> None:
    with pytest.raises(
        ValidationError, match=r"'Mom' is a name of two terms: MOM, CPF; let each alias stand for one term"
    ):
        _lexicon("MOM", CPF=("Mom",))
    with pytest.raises(ValidationError, match="'See Pee' is a name of two terms: MOM, CPF"):
        _lexicon(MOM=("see pee",), CPF=("See Pee",))
    assert _lexicon(MOM=("mom",)).terms[0].aliases == ("mom",)


def _parted(word: str, marks: list[str]) -> str:
    return "".join(f"{mark}{letter}" for letter, mark in zip(word, ["", *marks], strict=False))


@given(st.sampled_from([term for term in TERMS if " " not in term]), st.data())
def test_however_a_term_is_parted_it_is_found(term: str, data: st.DataObject) -> None:
    marks = data.draw(st.lists(st.sampled_from(["", " ", "-", "."]), min_size=len(term), max_size=len(term)))
    form = _parted(term, marks)
    if not term.isupper():
        form = data.draw(st.sampled_from([form, form.lower(), form.upper()]))
    assert WRITE(f"of {form}, then") == f"of {term}, then"


PIECES = ("C", "P", "F", "m", "o", "M", "O", "elder", "Elder", "shield", "Shield", "corp", "Pass", "Life", "my", "s")
TEXTS = st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(["", " ", "-", ".", ", ", ". ", "'"]))).map(
    lambda parts: "".join(piece + mark for piece, mark in parts)
)


@given(TEXTS)
def test_only_blanks_dots_hyphens_and_case_change(text: str) -> None:
    """So it writes no word that was not there, and leaves none out."""

    def letters(written: str) -> str:
        return re.sub(r"[ .\-]", "", written).casefold()

    assert letters(WRITE(text)) == letters(text)


@given(TEXTS)
def test_what_is_written_is_final(text: str) -> None:
    once = WRITE(text)
    assert WRITE(once) == once


@given(TEXTS)
def test_capitals_alone_are_an_abbreviation(text: str) -> None:
    """In small letters no text holds one, however it is parted."""
    assert not set(re.findall(r"\w+", WRITE(text.lower()))) & {"CPF", "MOM"}


@given(TEXTS)
def test_without_a_letter_of_any_term_nothing_changes(text: str) -> None:
    write = alias_writer(_lexicon("Zyzzyva", "XQ"))
    assert write(text) == text


def test_a_parted_term_is_found_once_it_is_written_as_the_term() -> None:
    finder = TermFinder(TERMS, normaliser("en"))
    text = "My elder shield and C.P.F. papers"
    assert finder.find(text) == {}
    assert finder.find(WRITE(text)) == {"ElderShield": 1, "CPF": 1}
