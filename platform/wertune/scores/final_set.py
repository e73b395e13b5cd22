"""What an opening of the final set said: kept as a tag of its version, and read by wertune and wergate alike."""

from collections.abc import Iterable, Mapping

from pydantic import AwareDatetime, Field, ValidationError

from wertune.base.config import Frozen
from wertune.base.contract import OPENING_PREFIX
from wertune.base.errors import TrackingError
from wertune.scores.comparison import markdown_table

DIGEST_CHARACTERS = 8
_RATES = {"WER": "wer", "term recall": "term_recall", "term precision": "term_precision"}


class Opening(Frozen):
    """One version and the untouched base on the final set; no text of it, so that nobody tunes to what it says."""

    model: str
    version: str
    who: str
    at: AwareDatetime
    set_digest: str = Field(description="of the set's audio and texts: another set is opened anew")
    clips: int = Field(ge=1)
    run_id: str
    engine: str
    figures: dict[str, float] = Field(description="as the run has them: final_wer, baseline_final_wer, …")

    @property
    def key(self) -> str:
        """The tag's name: a version is opened once on one set."""
        return f"{OPENING_PREFIX}{self.set_digest[:DIGEST_CHARACTERS]}"

    @property
    def text(self) -> str:
        """For people: who opened what, and a table of base and version."""
        words, short = round(self.figures["final_words"]), self.set_digest[:DIGEST_CHARACTERS]
        head = f"final set {short}, {self.clips} clips, {words:,} words, by {self.engine}"
        named = [(shown, name) for shown, name in _RATES.items() if f"final_{name}" in self.figures]
        rows = [[shown, self._rate("baseline_final_", name), self._rate("final_", name)] for shown, name in named]
        table = markdown_table([["", "untouched base", f"{self.model}/{self.version}"], *rows])
        return f"{head}; opened by {self.who or 'nobody known'}, {self.at:%Y-%m-%d %H:%M} UTC\n{table}"

    def _rate(self, prefix: str, name: str) -> str:
        keys = (f"{prefix}{name}_low", f"{prefix}{name}_high")
        ends = [f"{100 * self.figures[key]:.1f}" for key in keys if key in self.figures]
        return f"{100 * self.figures[prefix + name]:.2f} %" + (f" ({' to '.join(ends)})" if len(ends) == 2 else "")


def openings(tags: Mapping[str, str]) -> list[Opening]:
    """Those that a version's tags hold; a TrackingError names a tag that somebody has changed by hand."""
    found = []
    for key, text in tags.items():
        if key.startswith(OPENING_PREFIX):
            try:
                found.append(Opening.model_validate_json(text))
            except ValidationError as error:
                fault = error.errors()[0]["msg"]
                raise TrackingError(f"tag {key} is not what this program wrote ({fault}); restore it") from None
    return found


def versions_opened(found: Iterable[Opening]) -> dict[str, list[str]]:
    """The versions that each set, by its digest, was opened for, each once."""
    sets: dict[str, set[str]] = {}
    for opening in found:
        sets.setdefault(opening.set_digest, set()).add(opening.version)
    return {digest: sorted(versions, key=int) for digest, versions in sets.items()}


def opened_for(versions: int) -> str:
    """What the count means."""
    return f"opened for {versions} version{'s' if versions > 1 else ''}: the more often, the less it says"
