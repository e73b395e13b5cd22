"""What Ray keeps of the server, to start it again."""

from pathlib import Path

from wertune.search.shipped_files import FileServer, Span

RAY_KEEPS_BYTES = 100 * 1024


def test_a_file_server_is_told_its_files_in_little_and_has_them(tmp_path: Path) -> None:
    files = []
    for name in ("a.wav", "b \N{LATIN SMALL LETTER E WITH ACUTE}.wav"):
        files.append(tmp_path / name)
        files[-1].write_text(name)
    server = FileServer(FileServer.pack(files[:1], files[1:], tmp_path))
    catalogue = server.catalogue()
    (audio,) = catalogue.audio.values()
    assert server.read([Span(catalogue.base[0].key, 0, 9), Span(audio.key, 0, 9)]) == [f.read_bytes() for f in files]
    many = [tmp_path / "audio" / f"speaker-{clip % 29}" / f"{clip:06d}.opus" for clip in range(10_000)]
    assert len(FileServer.pack(files, many, tmp_path)) < RAY_KEEPS_BYTES
