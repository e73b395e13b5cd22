"""What people say in two games is unpacked as it was packed."""

import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st

PLACE = Path(__file__).resolve().parents[2] / "projects/sg_gov/recordings/unpack_games.py"
spec = importlib.util.spec_from_file_location("unpack_games", PLACE)
assert spec is not None
assert spec.loader is not None
games = importlib.util.module_from_spec(spec)
spec.loader.exec_module(games)

Step = tuple[bytes, int, int]  # bytes as they are, then how far back and how many to copy


class _Packer:
    """Bits from the lowest on, and whole bytes where a reader that holds the next word ahead looks for them."""

    def __init__(self) -> None:
        self.bits: list[int] = []
        self.runs: list[tuple[int, bytes]] = []

    def put(self, value: int, count: int) -> None:
        self.bits += [value >> i & 1 for i in range(count)]

    def table(self) -> None:
        """Sixteen symbols of four bits each."""
        self.put(16, 5)
        for _ in range(16):
            self.put(4, 4)

    def number(self, value: int) -> None:
        symbol = value.bit_length()
        self.put(int(f"{symbol:04b}"[::-1], 2), 4)
        if symbol > 1:
            self.put(value - (1 << symbol - 1), symbol - 1)

    def data(self) -> bytes:
        words = [self.bits[i : i + 16] for i in range(0, len(self.bits), 16)]
        data = b""
        for place in range(len(words) + 1):
            data += b"".join(run for word, run in self.runs if word == place)
            if place < len(words):
                data += sum(bit << i for i, bit in enumerate(words[place])).to_bytes(2, "little")
        return data


def packed(chunks: list[list[Step]]) -> tuple[bytes, bytes]:
    """The packed bytes and what they say; the last step of a chunk copies nothing."""
    packer, plain = _Packer(), bytearray()
    packer.put(0, 2)
    for steps in chunks:
        for _ in range(3):
            packer.table()
        packer.put(len(steps), 16)
        for i, (run, distance, length) in enumerate(steps):
            packer.number(len(run))
            packer.runs += [(-(-len(packer.bits) // 16), run)]
            plain += run
            if i + 1 < len(steps):
                back = min(distance, len(plain))
                packer.number(back - 1)
                packer.number(length - 2)
                for _ in range(length):
                    plain.append(plain[-back])
    header = b"RNC\x01" + len(plain).to_bytes(4, "big") + bytes(9) + bytes([len(chunks)])
    return header + packer.data(), bytes(plain)


_STEP = st.tuples(st.binary(min_size=1, max_size=40), st.integers(1, 60), st.integers(2, 30))


@given(st.lists(st.lists(_STEP, min_size=1, max_size=6), min_size=1, max_size=3))
def test_what_was_packed_is_unpacked(chunks: list[list[Step]]) -> None:
    data, plain = packed(chunks)
    assert games.unpacked(data) == plain


def test_a_wrong_length_is_told() -> None:
    data, _ = packed([[(b"speech", 1, 2)]])
    with pytest.raises(ValueError, match="6 bytes unpacked, but the header says 7"):
        games.unpacked(data[:4] + (7).to_bytes(4, "big") + data[8:])


def test_both_games_are_read(tmp_path: Path) -> None:
    data, plain = packed([[(bytes(range(100, 140)), 20, 12), (b"\x80", 1, 2)]])
    entries = [(17, b"no speech"), (50_001, bytes(22) + data), (50_002, bytes(22) + b"\x00\x80\xff")]
    disk, index = b"", len(entries).to_bytes(4, "little")
    for number, content in entries:
        index += number.to_bytes(2, "little") + len(disk).to_bytes(3, "little") + len(content).to_bytes(3, "little")
        disk += content
    (tmp_path / "sky.dnr").write_bytes(index)
    (tmp_path / "sky.dsk").write_bytes(disk)
    found = {name: (samples, rate) for name, samples, rate in games.steel_sky(tmp_path)}
    assert list(found) == ["50001", "50002"]
    assert found["50002"][0].tolist() == [-1, 0, 127 / 128]
    assert np.array_equal((found["50001"][0] + 1) * 128, np.frombuffer(plain, np.uint8))
    assert found["50001"][1] == 11025

    sound = io.BytesIO()
    sf.write(sound, np.zeros(11025), 11025, format="MP3")
    table = 15 + 21 * 2
    rows = b"".join(
        name.ljust(12, b"\0") + b"\0" + table.to_bytes(4, "big") + len(sound.getvalue()).to_bytes(4, "big")
        for name in (b"020001P2.SB", b"ROOM.PCX")
    )
    (tmp_path / "queen.1c").write_bytes(bytes(13) + (2).to_bytes(2, "big") + rows + sound.getvalue())
    (only,) = games.amazon_queen(tmp_path)
    assert only[0] == "020001P2"
    assert only[2] == 11025
