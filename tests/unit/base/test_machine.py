"""What a scheduler's folders do to a search."""

import pytest

from wertune.base.errors import ConfigError
from wertune.base.machine import RAY_SOCKET, SOCKET_PATH_BYTES, require_short_temp


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_temporary_folder_too_long_for_rays_sockets_is_told(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    require_short_temp()
    room = SOCKET_PATH_BYTES - len(RAY_SOCKET)
    monkeypatch.setenv(variable, "/" + "a" * (room - 1))
    require_short_temp()
    monkeypatch.setenv(variable, "/scratch/" + "j" * 108)
    with pytest.raises(ConfigError) as caught:
        require_short_temp()
    assert str(caught.value) == (
        f"{variable} is /scratch/{'j' * 108}, of 117 characters, but must have at most {room}: Ray's sockets lie below "
        "it; set RAY_TMPDIR to a shorter folder, such as /tmp"
    )
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    require_short_temp()
