"""Time-coded transcripts as the programs write them whose formats they are: of the same segments."""

import json
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple


class Said(NamedTuple):
    text: str
    start_s: float
    end_s: float
    speaker: str = ""


def clock(seconds: float, point: str) -> str:
    ms = round(1000 * seconds)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}{point}{ms % 1000:03d}"


def srt(said: Sequence[Said]) -> str:
    times = (f"{clock(each.start_s, ',')} --> {clock(each.end_s, ',')}" for each in said)
    return "\r\n".join(f"{n}\r\n{at}\r\n{said[n - 1].text}\r\n" for n, at in enumerate(times, start=1))


def vtt(said: Sequence[Said]) -> str:
    cues = ["WEBVTT - a talk\n", "STYLE\n::cue { color: lime }\n", "NOTE\nby hand\n"]
    for each in said:
        times = f"{clock(each.start_s, '.')} --> {clock(each.end_s, '.')} align:start"
        text = escape(each.text, quote=False)
        cues.append(f"{times}\n{f'<v {escape(each.speaker, quote=False)}>{text}</v>' if each.speaker else text}\n")
    return "\n".join(cues)


def _tiers(said: Sequence[Said]) -> dict[str, list[Said]]:
    """Each speaker's intervals without a gap, as Praat has them."""
    tiers: dict[str, list[Said]] = {}
    for each in said:
        tier = tiers.setdefault(each.speaker, [])
        tier += [Said("", tier[-1].end_s if tier else 0.0, each.start_s), each]
    return tiers


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def textgrid(said: Sequence[Said]) -> str:
    tiers, end = _tiers(said), said[-1].end_s
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0 ", f"xmax = {end} "]
    lines += ["tiers? <exists> ", f"size = {len(tiers) + 1} ", "item []: "]
    for number, (name, intervals) in enumerate(tiers.items(), start=1):
        lines += [f"    item [{number}]:", '        class = "IntervalTier" ', f"        name = {_quoted(name)} "]
        lines += ["        xmin = 0 ", f"        xmax = {end} ", f"        intervals: size = {len(intervals)} "]
        for at, each in enumerate(intervals, start=1):
            lines += [f"        intervals [{at}]:", f"            xmin = {each.start_s} "]
            lines += [f"            xmax = {each.end_s} ", f"            text = {_quoted(each.text)} "]
    lines += [
        f"    item [{len(tiers) + 1}]:",
        '        class = "TextTier" ',
        '        name = "bells" ',
        "        xmin = 0 ",
    ]
    lines += [f"        xmax = {end} ", "        points: size = 1 ", "        points [1]:", "            number = 0.5 "]
    return "\n".join([*lines, '            mark = "ding" ', ""])


def textgrid_short(said: Sequence[Said]) -> str:
    tiers, end = _tiers(said), said[-1].end_s
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "0", str(end), "<exists>", str(len(tiers))]
    for name, intervals in tiers.items():
        lines += ['"IntervalTier"', _quoted(name), "0", str(end), str(len(intervals))]
        for each in intervals:
            lines += [str(each.start_s), str(each.end_s), _quoted(each.text)]
    return "\n".join([*lines, ""])


def eaf(said: Sequence[Said]) -> str:
    slots, tiers = [], dict.fromkeys(each.speaker for each in said)
    marked: dict[str, list[str]] = {speaker: [] for speaker in tiers}
    for number, each in enumerate(said, start=1):
        for at, seconds in enumerate((each.start_s, each.end_s), start=1):
            slots.append(f'<TIME_SLOT TIME_SLOT_ID="ts{number}_{at}" TIME_VALUE="{round(1000 * seconds)}"/>')
        refs = f'TIME_SLOT_REF1="ts{number}_1" TIME_SLOT_REF2="ts{number}_2"'
        value = f"<ANNOTATION_VALUE>{escape(each.text)}</ANNOTATION_VALUE>"
        inner = f'<ALIGNABLE_ANNOTATION ANNOTATION_ID="a{number}" {refs}>{value}</ALIGNABLE_ANNOTATION>'
        marked[each.speaker].append(f"<ANNOTATION>{inner}</ANNOTATION>")
    written = "".join(
        f'<TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID="tier {number}" PARTICIPANT="{escape(speaker)}">'
        + "".join(marked[speaker])
        + "</TIER>"
        for number, speaker in enumerate(tiers, start=1)
    )
    translated = (
        '<TIER TIER_ID="English" PARENT_REF="tier 1"><ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="b1" '
        'TIME_SLOT_REF1="ts1_1" TIME_SLOT_REF2="ts1_2"><ANNOTATION_VALUE>no</ANNOTATION_VALUE>'
        "</ALIGNABLE_ANNOTATION></ANNOTATION></TIER>"
    )
    order = f"<TIME_ORDER>{''.join(slots)}</TIME_ORDER>"
    document = f"<ANNOTATION_DOCUMENT>{order}{written}{translated}</ANNOTATION_DOCUMENT>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{document}'


def labels(said: Sequence[Said]) -> str:
    return "".join(f"{each.start_s:.6f}\t{each.end_s:.6f}\t{each.text}\n\\\t100.0\t2000.0\n" for each in said)


def stm(said: Sequence[Said]) -> str:
    lines = (f"talk 1 {s.speaker or 'x'} {s.start_s:.3f} {s.end_s:.3f} <o,f0,male> {s.text}\n" for s in said)
    return ";; CATEGORY\n" + "".join(lines)


def ctm(said: Sequence[Said]) -> str:
    """The words of each segment share its time; a speaker is a channel."""
    channels = {name: number for number, name in enumerate(dict.fromkeys(each.speaker for each in said), start=1)}
    lines = []
    for each in said:
        words = each.text.split()
        lasts = (each.end_s - each.start_s) / len(words)
        for number, word in enumerate(words):
            lines.append(f"talk {channels[each.speaker]} {each.start_s + number * lasts:.6f} {lasts:.6f} {word} 0.99\n")
    return "".join(lines)


def whisper(said: Sequence[Said]) -> str:
    """With `speaker` where one is named, as WhisperX has it."""
    segments = [
        {"id": number, "start": each.start_s, "end": each.end_s, "text": f" {each.text}", "words": []}
        | ({"speaker": each.speaker} if each.speaker else {})
        for number, each in enumerate(said)
    ]
    values = {"task": "transcribe", "language": "english", "text": " ".join(s.text for s in said), "segments": segments}
    return json.dumps(values)


def segments_alone(said: Sequence[Said]) -> str:
    return json.dumps([{"start": s.start_s, "end": s.end_s, "text": s.text, "speaker": s.speaker} for s in said])


def cut(said: Said, audio: str, number: int = 0) -> dict[str, object]:
    """One of Lhotse's, that begins 0.5 s before what is said, or where the recording does."""
    start = max(0.0, said.start_s - 0.5)
    supervision = {"id": f"s{number}", "recording_id": "talk", "start": said.start_s - start, "channel": 0}
    supervision |= {"duration": said.end_s - said.start_s, "text": said.text, "language": "en", "speaker": said.speaker}
    source = {"type": "file", "channels": [0], "source": audio}
    recording = {"id": "talk", "sources": [source], "sampling_rate": 16000, "num_samples": 1, "duration": 1.0}
    values = {"id": f"c{number}", "start": start, "duration": said.end_s - start, "channel": 0, "type": "MonoCut"}
    return values | {"supervisions": [supervision], "recording": recording}


def cuts(said: Sequence[Said], audio: str = "talk.wav") -> str:
    return "".join(json.dumps(cut(each, audio, number)) + "\n" for number, each in enumerate(said))


# By name of the file that holds it; what names no speakers, or not by these names, stands in ANONYMOUS.
WRITERS: dict[str, Callable[[Sequence[Said]], str]] = {
    "talk.srt": srt,
    "talk.vtt": vtt,
    "talk.TextGrid": textgrid,
    "short/talk.TextGrid": textgrid_short,
    "talk.eaf": eaf,
    "talk.txt": labels,
    "talk.stm": stm,
    "talk.ctm": ctm,
    "talk.json": whisper,
    "alone/talk.json": segments_alone,
}
ANONYMOUS = ("talk.srt", "talk.txt", "talk.ctm")
