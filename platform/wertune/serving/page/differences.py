"""Which words of two texts are not the other's."""

from difflib import SequenceMatcher

from wertune.base.text import is_mark, letter_by_letter

Words = list[tuple[str, bool]]


def differing(left: str, right: str) -> tuple[Words, Words]:
    """The words of both texts as they stand, each with whether the other text says otherwise there.

    Capitals and punctuation make no difference; in scripts without blanks between words a letter is a word.
    """
    both = letter_by_letter(left).split(), letter_by_letter(right).split()
    first, second = ([_folded(word) for word in words] for words in both)
    marked: tuple[Words, Words] = ([], [])
    for kind, i, j, k, m in SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        marked[0].extend((word, kind != "equal") for word in both[0][i:j])
        marked[1].extend((word, kind != "equal") for word in both[1][k:m])
    return marked


def _folded(word: str) -> str:
    return "".join(sign for sign in word if sign.isalnum() or is_mark(sign)).casefold() or word
