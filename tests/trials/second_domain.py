"""A domain of real recordings of another language, for searches: Asterisk's prompts, as a person says them.

`python -m tests.trials.second_domain FOLDER` writes a project of French ones (Debian's asterisk-core-sounds-fr-wav, CC
BY-SA 3.0), with the settings and the space that `init` writes; but one speaker says all, and no battery is asked.
"""

import argparse
import gzip
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
import yaml

from wertune.base.text import normaliser

LANGUAGE, VOICE = "fr", "fr_CA_f_June"
SOUNDS = Path("/usr/share/asterisk/sounds") / VOICE
TEXTS = Path(f"/usr/share/doc/asterisk-core-sounds-{LANGUAGE}/core-sounds-{LANGUAGE}.txt.gz")
SHARES = {"validation": 0.25, "test": 0.15}
SHORTEST_S, LONGEST_S, LEAST_WORDS = 0.8, 12.0, 2


def rows() -> dict[str, list[dict[str, str]]]:
    """The prompts with a text of two words or more, by split; what is said twice is in one of them."""
    texts = dict[str, str]()
    for line in gzip.decompress(TEXTS.read_bytes()).decode("utf-8").splitlines():
        name, _, text = line.partition(": ")
        recording = SOUNDS / f"{name.strip()}.wav"
        is_said = text and text[0] not in "[(" and len(text.split()) >= LEAST_WORDS and not name.startswith(";")
        if is_said and recording.exists() and SHORTEST_S <= soundfile.info(recording).duration <= LONGEST_S:
            texts[str(recording)] = text.strip()
    normalise = normaliser(LANGUAGE)  # by which `validate` finds what is in two splits
    said = sorted({normalise(text) for text in texts.values()})
    order = np.random.default_rng(0).permutation(len(said))
    ends = np.cumsum([round(share * len(said)) for share in SHARES.values()])
    places = np.searchsorted(ends, np.arange(len(said)), "right")
    split_of = {said[at]: [*SHARES, "train"][place] for at, place in zip(order, places, strict=True)}
    found: dict[str, list[dict[str, str]]] = {split: [] for split in ("train", *SHARES)}
    for recording, text in sorted(texts.items()):
        found[split_of[normalise(text)]].append({"audio_filepath": recording, "text": text, "speaker": VOICE})
    return found


def write(folder: Path, splits: Mapping[str, Sequence[Mapping[str, str]]]) -> Path:
    """The project of these rows, in `folder`/projects."""
    command = [sys.executable, "-m", "wertune", "init", "prompts", "--language", LANGUAGE, "--term", "Asterisk"]
    subprocess.run(command, cwd=folder, check=True)
    project = folder / "projects" / "prompts"
    for split, lines in splits.items():
        text = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
        (project / "manifests" / f"{split}.jsonl").write_text(text, encoding="utf-8")
    settings = yaml.safe_load((project / "project.yaml").read_text(encoding="utf-8"))
    settings["data"] |= {"audio_root": str(SOUNDS), "disjoint_speakers": False, "battery": None}
    (project / "project.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return project


def main() -> None:
    """Writes it, and says what it holds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    splits = rows()
    print(f"{write(folder, splits)}: {', '.join(f'{len(lines)} {split}' for split, lines in splits.items())}")


if __name__ == "__main__":
    main()
