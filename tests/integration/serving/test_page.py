"""The page in a real browser with the real tiny.en: upload, microphone, keyboard, and a file that is no sound."""

import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import uvicorn
from tests.support.joined import join
from tests.support.places import DEMO

from wertune.base.config import ProjectConfig, load_yaml
from wertune.data.audio import load_audio
from wertune.serving.listener import base_voice
from wertune.serving.page.app import make_app

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
CLIP = DEMO / "audio" / "test" / "s0014-kokoro-kumo-674d53c1.opus"
WAIT_MS = 120_000


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    project = load_yaml(DEMO / "project.yaml", ProjectConfig)
    base = base_voice("packaged:whisper-tiny.en", project)
    greedy = replace(base, name="greedy", decode=base.decode.model_copy(update={"num_beams": 1}))
    server = uvicorn.Server(uvicorn.Config(make_app([base, greedy], "127.0.0.1"), port=0, log_level="warning"))
    socket = server.config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def page(address: str, tmp_path: Path) -> Iterator["playwright.Page"]:
    soundfile.write(tmp_path / "clip.wav", load_audio(CLIP), 16000)
    flags = ["--no-sandbox", "--disable-gpu", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    microphone = f"--use-file-for-fake-audio-capture={tmp_path / 'clip.wav'}"
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=CHROMIUM, args=[*flags, microphone])
        page = browser.new_page()
        page.set_default_timeout(WAIT_MS)
        page.goto(address)
        yield page
        browser.close()


def _texts(page: "playwright.Page") -> list[str]:
    page.get_by_text("s heard.").wait_for()
    return [text.lower() for text in page.locator("#answers .text").all_inner_texts()]


def test_upload_record_and_a_bad_file(page: "playwright.Page", tmp_path: Path) -> None:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: message.type == "error" and errors.append(message.text))

    page.set_input_files("#file", CLIP)
    assert all("treatment in a private hospital" in text for text in _texts(page))
    assert page.locator("#answers h2").all_inner_texts() == ["packaged:whisper-tiny.en", "greedy"]
    assert not page.locator("#fault").is_visible()

    page.keyboard.press("r")
    page.get_by_text("Recording: 4 s").wait_for()
    assert page.get_by_role("button", name="Stop").get_attribute("aria-pressed") == "true"
    page.keyboard.press("r")
    # The recording goes round: some of it is heard twice.
    assert all("hospital" in text for text in _texts(page))
    assert not errors

    (tmp_path / "bad.wav").write_text("no sound")
    page.set_input_files("#file", tmp_path / "bad.wav")
    page.get_by_role("alert").get_by_text("must be one of wav, flac, ogg, mp3").wait_for()
    assert not page.locator("#answers").is_visible()
    # The browser itself writes of a refused request; the script writes nothing.
    assert len(errors) == 1
    assert "400" in errors[0]


def test_a_recording_that_is_given_up_is_not_sent(page: "playwright.Page") -> None:
    page.get_by_role("button", name="Record").click()
    page.get_by_text("Recording: 1 s").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Record").wait_for()
    assert not page.locator("#answers").is_visible()
    assert page.get_by_role("status").text_content() == ""


def test_a_narrow_screen_has_one_column_and_no_scrolling_aside(page: "playwright.Page") -> None:
    page.set_viewport_size({"width": 340, "height": 700})
    page.set_input_files("#file", CLIP)
    _texts(page)
    left, right = (box.bounding_box() for box in page.locator("article").all())
    assert left["y"] + left["height"] <= right["y"]
    assert left["x"] + left["width"] <= 340


def test_a_long_recording_is_played_from_the_segment_that_is_clicked(page: "playwright.Page", tmp_path: Path) -> None:
    join(["validation"], 0.55, 1, tmp_path / "long.wav")
    page.set_input_files("#file", tmp_path / "long.wav")
    _texts(page)
    for answer in page.locator("#answers article").all():
        buttons = answer.locator(".segments button")
        assert buttons.count() > 3
        last = buttons.nth(buttons.count() - 1)
        minutes, seconds = last.locator("time").inner_text().split(":")
        last.click()
        place_s = page.evaluate(
            "() => { const player = document.getElementById('player'); return player.currentTime; }"
        )
        assert int(seconds) + 60 * int(minutes) <= place_s < int(seconds) + 60 * int(minutes) + 3
        assert not page.evaluate("() => document.getElementById('player').paused")

    page.set_input_files("#file", CLIP)
    page.get_by_text("s heard.").wait_for()
    page.locator("#answers .segments").first.wait_for(state="hidden")
