"""A transcript without times as sentences: a line each, or running text that is cut where sentences end."""

import re
from pathlib import Path

from wertune.alignment.heard import bare_words
from wertune.base.errors import ConfigError, ManifestError
from wertune.data.importers.item import one_line, read_text
from wertune.data.manifest import damage

RUNNING_LETTERS = 200  # a line of more is no sentence but a paragraph
# After a full stop, a question or exclamation mark, with what closes there; in scripts without blanks none follows.
_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？])[”’」』）]*\s*")
_INITIAL = re.compile(r"(?:^|\s)(?:[A-Z]|Mr|Mrs|Ms|Dr|St|No|vs|e\.g|i\.e|etc)\.$")


def read_sentences(path: Path) -> list[str]:
    """Sentences in their order; ConfigError or ManifestError where there is no text that can be read."""
    if not path.is_file():
        raise ConfigError(f"the transcript is {path}, but must be a text file that is there; mend the name")
    text = read_text(path)
    if wrong := damage(text):
        raise ManifestError(f"{path}: {wrong}")
    found = [sentence for line in text.split("\n") for sentence in sentences(one_line(line))]
    found = [sentence for sentence in found if bare_words(sentence)]
    if not found:
        raise ManifestError(f"{path} holds no words, but must say what is said in the recording; give its transcript")
    return found


def sentences(line: str) -> list[str]:
    """A line as it is, and a paragraph cut behind its sentences' ends."""
    if len(line) <= RUNNING_LETTERS:
        return [line] if line else []
    found, start = list[str](), 0
    for end in _END.finditer(line):
        if not _INITIAL.search(line[start : end.start()]):
            found.append(line[start : end.end()].strip())
            start = end.end()
    return [*found, line[start:].strip()] if line[start:].strip() else found
