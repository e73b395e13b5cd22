"""When each word of what was written is said: by the heads that follow a recording, and its energy.

The alignment says where words go over into each other, and shares pauses among them; sentences part in the quietest
place, and no word begins or ends where it is as quiet as in a pause.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from wertune.base.config import ContextConfig
from wertune.base.text import joined, label_text, letter_by_letter
from wertune.data.audio import SAMPLE_RATE_HZ, Samples
from wertune.data.levels import Levels, levels, quietest
from wertune.whisper.features import FRAMES_PER_SECOND as MEL_FRAMES_PER_SECOND
from wertune.whisper.features import context_positions, log_mel
from wertune.whisper.timed.attention import Floats
from wertune.whisper.timed.guards import peak_db, speech, trimmed
from wertune.whisper.transcription import Check, Segment, TimedTranscriber, Word

LONGEST_S = 28.0  # of what is followed at once
BESIDE_S = 0.5  # heard before the first segment and behind the last: their times may be a little wrong
SENTENCE_ENDS = ".?!…。？！।"
SHORTEST_S = 0.02


def spans(text: str) -> list[tuple[int, int]]:
    """The first character of each word and the one behind it; marks that stand alone go with the word before."""
    found, at = list[tuple[int, int]](), 0
    for word in letter_by_letter(text).split():
        at = text.index(word, at)
        end = at + len(word)
        if found and not any(map(str.isalnum, word)):
            found[-1] = (found[-1][0], end)
        else:
            found.append((at, end))
        at = end
    return found


def with_words(
    whisper: TimedTranscriber,
    samples: Samples,
    segments: Sequence[Segment],
    context: ContextConfig,
    language: str = "",
    check: Check = lambda: None,
) -> list[Segment]:
    """The segments of a recording with their words, from the first word's start to the last one's end.

    BaseModelError where no head of the base follows a recording.
    """
    found, ends_s = list[Segment](), samples.size / SAMPLE_RATE_HZ
    groups = list(_groups(segments))
    for number, group in enumerate(groups):
        check()
        before_s = found[-1].end_s if found else 0.0
        after_s = groups[number + 1][0].start_s if number + 1 < len(groups) else ends_s
        start_s = max(0.0, group[0].start_s - BESIDE_S, min(before_s, group[0].start_s))
        end_s = min(ends_s, group[-1].end_s + BESIDE_S, max(after_s, group[-1].end_s))
        heard = samples[round(start_s * SAMPLE_RATE_HZ) : round(end_s * SAMPLE_RATE_HZ)]
        found += _followed(whisper, heard, start_s, group, context, language)
    return found


def _groups(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """Neighbours that are followed at once; one without a word parts them: its noise would draw words to it."""
    group = list[Segment]()
    for segment in segments:
        is_parted = group and not (segment.text and group[-1].text)
        if is_parted or (group and segment.end_s - group[0].start_s > LONGEST_S):
            yield group
            group = []
        group.append(segment)
    if group:
        yield group


def _followed(
    whisper: TimedTranscriber,
    heard: Samples,
    start_s: float,
    group: Sequence[Segment],
    context: ContextConfig,
    language: str,
) -> Iterator[Segment]:
    """Each segment of the group with its words."""
    text, places = "", list[list[tuple[int, int]]]()
    for segment in group:
        text = joined([text, segment.text])
        at = len(text) - len(segment.text)
        places.append([(at + first, at + last) for first, last in spans(segment.text)])
    every = [place for own in places for place in own]
    times = iter(_words(whisper, heard, text, every, context, language) if every and heard.size else [])
    for segment, words in zip(group, places, strict=True):
        own = [
            Word(text[first:last], start_s + begin_s, start_s + end_s, probability)
            for (first, last), (begin_s, end_s, probability) in zip(words, times, strict=False)
        ]
        yield replace(segment, start_s=own[0].start_s, end_s=own[-1].end_s, words=tuple(own)) if own else segment


def _words(
    whisper: TimedTranscriber,
    heard: Samples,
    text: str,
    places: Sequence[tuple[int, int]],
    context: ContextConfig,
    language: str,
) -> list[tuple[float, float, float]]:
    """The start, end and probability of the words at these places in the text."""
    before = label_text("a", language or whisper.wording.language)[:-1]  # the blank that texts begin with, or none
    written = before + text
    said = whisper.wording.tokenizer(written, add_special_tokens=False, return_offsets_mapping=True)
    ids = said.input_ids[: whisper.most_tokens - len(whisper.wording.prompt_in(language)) - 1]
    features = log_mel(heard, context_positions(heard.size / SAMPLE_RATE_HZ, context), whisper.mel_bins)
    frames = -(-heard.size * MEL_FRAMES_PER_SECOND // SAMPLE_RATE_HZ)
    times, likely = whisper.time_tokens(features, ids, frames, language)
    signs = _signs(written, said.offset_mapping[: len(ids)], times, np.exp(likely))[len(before) :]
    rough = [(signs[a, 0], max(signs[b - 1, 1], signs[a, 0]), signs[a:b, 2].mean()) for a, b in places]
    level = levels(heard)
    parted = _parted([(float(a), float(b)) for a, b, _ in rough], [text[b - 1] for _, b in places], level)
    loud = speech(level, peak_db(level))
    heard_s = [trimmed(loud, *each) for each in parted]
    ordered = _in_order(heard_s, heard.size / SAMPLE_RATE_HZ)
    return [(a, b, float(p)) for (a, b), (_, _, p) in zip(ordered, rough, strict=True)]


def _in_order(words: Sequence[tuple[float, float]], ends_s: float) -> list[tuple[float, float]]:
    """Each word with its least time, none before the one before ends, and none behind the end."""
    found, shortest_s = list[tuple[float, float]](), min(SHORTEST_S, ends_s / max(1, len(words)))
    at_s = 0.0
    for start_s, end_s in words:
        start_s = max(at_s, start_s)
        at_s = max(end_s, start_s + shortest_s)
        found.append((start_s, at_s))
    for i in range(len(found) - 1, -1, -1):
        ends_s = min(found[i][1], ends_s)
        found[i] = (max(0.0, min(found[i][0], ends_s - shortest_s)), ends_s)
        ends_s = found[i][0]
    return found


def _signs(written: str, offsets: Sequence[tuple[int, int]], times: Floats, likely: Floats) -> Floats:
    """Start, end and probability (characters, 3) of each character; a token's time is shared by its letters."""
    found = np.full((len(written), 3), np.nan)
    for token, (start, end) in enumerate(offsets):
        while start < end - 1 and written[start].isspace():
            found[start] = times[token], times[token], likely[token]
            start += 1
        shares = np.linspace(times[token], times[token + 1], max(1, end - start) + 1)
        for place in range(start, end):
            begin = found[place, 0]  # a letter may be of several tokens
            own = shares[place - start : place - start + 2]
            found[place] = own[0] if np.isnan(begin) else begin, own[1], likely[token]
    missing = np.isnan(found[:, 0])  # of what the decoder has no room for
    found[missing] = times[-1], times[-1], 0.0
    return found


def _parted(
    words: Sequence[tuple[float, float]], last_signs: Sequence[str], level: Levels
) -> list[tuple[float, float]]:
    """The words' times with borders between sentences in their pauses."""
    found = list(words)
    for i in range(len(found) - 1):
        if last_signs[i] in SENTENCE_ENDS:
            (start, end), (after, last) = found[i], found[i + 1]
            border = quietest(level, (start + end) / 2, (after + last) / 2)
            border = min(max(border, start), max(last, start))
            found[i], found[i + 1] = (start, border), (border, max(border, last))
    return found
