"""Long recordings as a version serves them, beside the same clips alone: what is counted, and when it was written."""

from collections.abc import Sequence

from wertune.data.long_form import LongRecording
from wertune.scores.long_form import border_errors_s, score_in_place, with_borders
from wertune.scores.metrics import Scores
from wertune.serving.listener import Voice, text_of
from wertune.training.prepare import Prepared
from wertune.whisper.transcription import Segment, clips_of

AT_ONCE_S = 300.0  # of recordings that are written beside each other
NEAR_S = 0.02  # a header may say how long a recording lasts in samples of another rate


def together(recordings: Sequence[LongRecording]) -> list[list[LongRecording]]:
    """In their order, those that one call may hold in memory and write beside each other: of one language."""
    groups: list[list[LongRecording]] = []
    room_s = 0.0
    for recording in recordings:
        if not groups or groups[-1][0].language != recording.language or recording.duration_s > room_s:
            groups.append([])
            room_s = AT_ONCE_S
        groups[-1].append(recording)
        room_s -= recording.duration_s
    return groups


def write_long(voice: Voice, recordings: Sequence[LongRecording]) -> list[list[Segment]]:
    """The segments of each of the recordings, which are of one language."""
    language = recordings[0].language if recordings else ""
    return voice.write([recording.samples() for recording in recordings], language=language)


def score_texts(prepared: Prepared, recordings: Sequence[LongRecording], texts: Sequence[str]) -> list[Scores]:
    """Of each recording its clips in their places, in what was written of the whole."""
    both = zip(recordings, texts, strict=True)
    return [
        score_in_place(clips_of([each.clip for each in recording.said]), text, prepared.normalise, prepared.finder)
        for recording, text in both
    ]


def score_long(prepared: Prepared, recordings: Sequence[LongRecording], written: Sequence[Sequence[Segment]]) -> Scores:
    """All clips in their places, with the errors of their borders where segments have times of their own."""
    texts = [text_of(segments) for segments in written]
    scores = score_texts(prepared, recordings, texts)
    about = zip(scores, recordings, written, strict=True)
    return summed(
        [
            each if are_cuts(segments, recording.duration_s) else with_borders(each, _errors_s(recording, segments))
            for each, recording, segments in about
        ]
    )


def are_cuts(segments: Sequence[Segment], lasts_s: float) -> bool:
    """Whether they are the pieces that the recording was cut into, from beginning to end: nobody wrote such times."""
    times = [0.0, *(time_s for each in segments for time_s in (each.start_s, each.end_s)), lasts_s]
    return all(abs(one - other) < NEAR_S for one, other in zip(times[::2], times[1::2], strict=True))


def _errors_s(recording: LongRecording, segments: Sequence[Segment]) -> list[tuple[float, float]]:
    said = [(each.start_s, each.end_s) for each in recording.said]
    written = [(each.start_s, each.end_s) for each in segments if each.text]
    return border_errors_s(said, written, recording.duration_s)


def summed(scores: Sequence[Scores]) -> Scores:
    """All of them as one set."""
    return Scores(tuple(utterance for each in scores for utterance in each.utterances))


def alone(scores: Scores, recordings: Sequence[LongRecording]) -> Scores:
    """Of a scored set those clips that stand in the recordings, in the same order."""
    known = {utterance.id: utterance for utterance in scores.utterances}
    return Scores(tuple(known[each.clip.place] for recording in recordings for each in recording.said))
