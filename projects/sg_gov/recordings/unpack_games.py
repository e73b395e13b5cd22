"""Unpacks what people say in two games of Debian into WAV files beside this script, where synthesis.yaml looks for it.

apt-get install beneath-a-steel-sky flight-of-the-amazon-queen; python projects/sg_gov/recordings/unpack_games.py
"""

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile as sf

GAMES = Path("/usr/share/scummvm")
FOLDERS = {"steel_sky": GAMES / "beneath-a-steel-sky", "amazon_queen": GAMES / "flight-of-the-amazon-queen"}
SKY_RATE_HZ = 11025
SKY_SPEECH = range(50_000, 60_000)
SKY_HEADER_BYTES = 22
SKY_ENTRY = ((0, 2), (2, 5), (5, 8))  # number, place, size
QUEEN_TABLE, QUEEN_ENTRY_BYTES = 15, 21


def steel_sky(folder: Path) -> Iterator[tuple[str, np.ndarray, int]]:
    """Each recording's number, samples and rate; sky.dnr lists what sky.dsk holds, packed by RNC or not."""
    index, disk = (folder / "sky.dnr").read_bytes(), (folder / "sky.dsk").read_bytes()
    for start in range(4, 4 + 8 * int.from_bytes(index[:4], "little"), 8):
        number, place, size = (int.from_bytes(index[start + a : start + b], "little") for a, b in SKY_ENTRY)
        if number not in SKY_SPEECH:
            continue
        offset = (place & 0x7FFFFF) << (4 if place >> 23 else 0)
        data = disk[offset : offset + (size & 0x3FFFFF)][SKY_HEADER_BYTES:]
        data = unpacked(data) if data.startswith(b"RNC\x01") else data
        yield str(number), np.frombuffer(data, np.uint8).astype(np.float32) / 128 - 1, SKY_RATE_HZ


def amazon_queen(folder: Path) -> Iterator[tuple[str, np.ndarray, int]]:
    """Each recording's name, samples and rate: MP3 in the one file of the game, behind a table of names and places."""
    data = (folder / "queen.1c").read_bytes()
    for number in range(int.from_bytes(data[13:15], "big")):
        start = QUEEN_TABLE + QUEEN_ENTRY_BYTES * number
        entry = data[start : start + QUEEN_ENTRY_BYTES]
        name, _, ending = entry[:12].rstrip(b"\0").decode("ascii").partition(".")
        offset, size = (int.from_bytes(entry[a : a + 4], "big") for a in (13, 17))
        if ending == "SB":
            samples, rate_hz = sf.read(io.BytesIO(data[offset : offset + size]), dtype="float32")
            yield name, samples, rate_hz


def unpacked(data: bytes) -> bytes:
    """Rob Northen's compression, method 1: runs as they are, and copies of what came before, both Huffman-coded."""
    bits, written = _Bits(data, 18), bytearray()
    bits.take(2)
    for _ in range(data[17]):
        runs, distances, lengths = (_codes(bits) for _ in range(3))
        for left in reversed(range(bits.take(16))):
            written += bits.bytes(_value(bits, runs))
            if left:
                distance, length = _value(bits, distances) + 1, _value(bits, lengths) + 2
                for _ in range(length):
                    written.append(written[-distance])
    if len(written) != int.from_bytes(data[4:8], "big"):
        raise ValueError(f"{len(written)} bytes unpacked, but the header says {int.from_bytes(data[4:8], 'big')}")
    return bytes(written)


class _Bits:
    """Words of 16 bits from the lowest on, between which whole bytes stand."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at
        self.held, self.count = self._word(), 16

    def _word(self) -> int:
        return int.from_bytes(self.data[self.at : self.at + 2], "little")

    def take(self, count: int) -> int:
        taken = self.held & ((1 << count) - 1)
        self.held >>= count
        self.count -= count
        if self.count < 16:
            self.at += 2
            self.held |= self._word() << self.count
            self.count += 16
        return taken

    def bytes(self, count: int) -> bytes:
        if not count:
            return b""
        start, self.at = self.at, self.at + count
        self.count -= 16  # the word that was read ahead began here
        self.held = self.held & ((1 << self.count) - 1) | self._word() << self.count
        self.count += 16
        return self.data[start : self.at]


def _codes(bits: _Bits) -> list[tuple[int, int, int]]:
    """Length in bits, bits from the lowest on, and symbol of each code, the shortest first."""
    sizes = [bits.take(4) for _ in range(bits.take(5))]
    codes, code = [], 0
    for size in range(1, 16):
        for symbol in (symbol for symbol, its in enumerate(sizes) if its == size):
            codes.append((size, int(f"{code:0{size}b}"[::-1], 2), symbol))
            code += 1
        code <<= 1
    return codes


def _value(bits: _Bits, codes: list[tuple[int, int, int]]) -> int:
    """A number from the stream: its code says how many bits it has, and these follow without the highest."""
    size, _, symbol = next(each for each in codes if bits.held & ((1 << each[0]) - 1) == each[1])
    bits.take(size)
    return symbol if symbol < 2 else 1 << (symbol - 1) | bits.take(symbol - 1)


def main() -> None:
    for name, read in (("steel_sky", steel_sky), ("amazon_queen", amazon_queen)):
        if not FOLDERS[name].is_dir():
            sys.exit(f"{FOLDERS[name]} does not exist; on Debian: apt-get install {FOLDERS[name].name}")
        out = Path(__file__).parent / "unpacked" / name
        out.mkdir(parents=True, exist_ok=True)
        for file, samples, rate_hz in read(FOLDERS[name]):
            sf.write(out / f"{file}.wav", samples, rate_hz)
        print(f"{out}: {len(list(out.iterdir()))} recordings")


if __name__ == "__main__":
    main()
