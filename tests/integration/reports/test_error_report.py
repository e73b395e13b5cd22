"""The error report in a real Chromium, from a file: searching, filtering, playing, keyboard, narrow and dark."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from wertune.base.text import TermFinder
from wertune.data.audio import SAMPLE_RATE_HZ
from wertune.data.clip_files import encode_opus
from wertune.data.manifest import Recording
from wertune.data.rows import Row
from wertune.reports.error_report import MAX_PAGE_BYTES, SHOWN_CONFUSIONS, ScoredSet, error_report
from wertune.scores.comparison import Comparison
from wertune.scores.metrics import score
from wertune.whisper.transcription import clips_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"]
CLIPS, SOUNDS, SECONDS = 500, 20, 6.0
SENTENCES = (
    # said, written by the base, written by the adapter
    ("Pay your CPF today.", "Pay your sea pee f today.", "Pay your CPF today."),
    ("Log in with Singpass now", "Log in with sing pass now", "Log in Singpass now"),
    ("The counter is closed", "The counter is closed", "The counter is CPF closed"),
    ("<b onclick=alert(1)>Bold</b> words", "<i>other</i>", "<script>alert(2)</script> words"),
    ("Nothing was wrong here at all", "Nothing was wrong", "Nothing was wrong here at all"),
)

ORDERED = (
    # said, seconds, written by the base, written by the adapter
    ("bad cab", 2.0, "x x", "y y"),
    ("all a b c d e f g h i", 1.0, "all a b c d e f g h i", "all a b c d e f y y y"),
    ("can k l m n o p q", 3.0, "can k x x x x x x", "can k l m y y y y"),
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path")


def _sound(path: Path, seconds: float, seed: int) -> Path:
    samples = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * SAMPLE_RATE_HZ))
    path.write_bytes(encode_opus(samples.clip(-1, 1).astype(np.float32), 20))
    return path


def _recording(path: Path, number: int, said: str, seconds: float, speaker: str) -> Recording:
    row = Row(audio_filepath=path.name, text=said, speaker=speaker)
    return Recording(row, f"{path.parent}/test.jsonl:{number + 1}", path, seconds, str(number))


def _scored(name: str, rows: Sequence[Recording], before: Sequence[str], after: Sequence[str]) -> ScoredSet:
    clips, finder = clips_of(rows), TermFinder(["CPF", "Singpass"], str.lower)
    return ScoredSet(name, rows, Comparison(*(score(clips, texts, str.lower, finder) for texts in (before, after))))


def _written(page: Path, *sets: ScoredSet) -> Path:
    page.write_text(error_report("A report", "of noise", sets, str.lower), encoding="utf-8")
    return page


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of 500 clips of six seconds of noise, of twenty sounds."""
    folder = tmp_path_factory.mktemp("report")
    sounds = [_sound(folder / f"{number}.opus", SECONDS, number) for number in range(SOUNDS)]
    said, *written = zip(*(SENTENCES[number % len(SENTENCES)] for number in range(CLIPS)), strict=True)
    rows = [_recording(sounds[n % SOUNDS], n, text, SECONDS, f"voice {n % 8}") for n, text in enumerate(said)]
    return _written(folder / "error_report.html", _scored("test", rows, *written))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips that every order puts differently; and one where the adapter has 201 errors and the base another."""
    folder = tmp_path_factory.mktemp("small")
    rows = [
        _recording(_sound(folder / f"{n}.opus", seconds, n), n, said, seconds, f"voice {10 - 4 * n}")
        for n, (said, seconds, *_) in enumerate(ORDERED)
    ]
    many = [" ".join(f"{letter}{n}" for n in range(SHOWN_CONFUSIONS + 1)) for letter in "ab"]
    long = [_recording(rows[0].path, 0, f"{many[0]} zebra", rows[0].duration_s, "ann")]
    return _written(
        folder / "error_report.html",
        _scored("test", rows, *zip(*(texts for _, _, *texts in ORDERED), strict=True)),
        _scored("retention_test", long, [f"{many[0]} horse"], [f"{many[1]} zebra"]),
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser: Browser, report: Path) -> Iterator[Callable[..., Page]]:
    """`opened(page, **context)`: the page in a fresh context; a word on the console or a request to a network fails."""
    contexts, said = [], []

    def open_page(file: Path = report, **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.on("request", lambda request: request.url.startswith("http") and said.append(request.url))
        page.goto(file.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def _rows(page: Page) -> Any:
    return page.locator(".row")


def _plays(page: Page, sound: int = 0) -> bool:
    """Whether the page's so manyth sound gets on; `wait_for_function` needs an eval that the page forbids."""
    for _ in range(200):
        page.wait_for_timeout(50)
        if page.evaluate("which => (document.querySelectorAll('audio')[which]?.currentTime ?? 0) > 0.1", sound):
            return True
    return False


def test_500_clips_with_their_sound_stay_under_the_limit(report: Path, opened: Callable[..., Page]) -> None:
    assert MAX_PAGE_BYTES / 4 < report.stat().st_size < MAX_PAGE_BYTES
    page = opened()
    expect(page.get_by_role("status")).to_contain_text("500 of 500 utterances")
    assert page.locator("script[id^=clip-]").count() == CLIPS
    assert page.locator("audio").count() == 0  # none is made before it is asked for
    expect(_rows(page)).to_have_count(200)
    page.get_by_role("button", name="Show 200 more").click()
    expect(_rows(page)).to_have_count(400)


def test_search_filters_and_counts(opened: Callable[..., Page]) -> None:
    page = opened()
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("singpass")
    expect(page.get_by_role("status")).to_contain_text("100 of 500")
    page.keyboard.press("Escape")
    expect(page.get_by_role("status")).to_contain_text("500 of 500")
    for kind, count in (("insertion", 100), ("deletion", 200), ("false", 100), ("missed", 0), ("any", 300)):
        page.get_by_label("Kind", exact=True).select_option(kind)
        expect(page.get_by_role("status")).to_contain_text(f"{count} of 500")
    page.get_by_label("Speaker", exact=True).select_option("voice 0")
    page.get_by_label("Errors of", exact=True).select_option("base")
    page.get_by_label("Kind", exact=True).select_option("missed")
    expect(page.get_by_role("status")).to_contain_text("26 of 500")  # every 8th clip, two of five sentences
    page.get_by_label("Term", exact=True).select_option("CPF")
    expect(page.get_by_role("status")).to_contain_text("13 of 500")
    page.get_by_role("button", name="Reset").click()
    expect(page.get_by_role("status")).to_contain_text("500 of 500")


@pytest.mark.parametrize(
    ("order", "of_adapter", "of_base"),
    [
        ("errors", "321", "312"),
        ("worse", "213", "312"),
        ("rate", "132", "132"),
        ("seconds", "312", "312"),
        ("given", "123", "123"),
    ],
)
def test_the_rows_stand_in_the_chosen_order(
    order: str, of_adapter: str, of_base: str, small: Path, opened: Callable[..., Page]
) -> None:
    page = opened(small)
    if order != "errors":  # which is the first
        page.get_by_label("Order", exact=True).select_option(order)
    for system, expected in (("adapter", of_adapter), ("base", of_base)):
        page.get_by_label("Errors of", exact=True).select_option(system)
        for place, number in enumerate(expected):
            expect(_rows(page).nth(place).locator(".clip")).to_contain_text(f"test.jsonl:{number}")


def test_a_wrong_word_filters_and_is_marked_by_shape(opened: Callable[..., Page]) -> None:
    page = opened()
    page.locator("#confusions button", has_text="cpf").click()
    expect(page.get_by_role("status")).to_contain_text("100 of 500")
    added = _rows(page).first.locator(".columns .added")
    expect(added).to_have_text("cpf")
    assert added.evaluate("each => getComputedStyle(each).outlineStyle") == "solid"
    page.get_by_label("Kind", exact=True).select_option("")
    page.get_by_role("button", name="No longer only this error").click()
    expect(page.get_by_role("status")).to_contain_text("500 of 500")
    page.get_by_role("searchbox").fill("log in with")
    assert "line-through" in _rows(page).first.locator(".left-out").first.evaluate(
        "each => getComputedStyle(each).textDecorationLine"
    )
    assert "wavy" in page.locator(".legend .swapped").evaluate("each => getComputedStyle(each).textDecorationStyle")


def test_voice_2_is_listed_before_voice_10(small: Path, opened: Callable[..., Page]) -> None:
    offered = opened(small).get_by_label("Speaker", exact=True).locator("option")
    expect(offered).to_have_text(["all", "voice 2", "voice 6", "voice 10"])


def test_the_wrong_words_are_those_of_the_chosen_system(small: Path, opened: Callable[..., Page]) -> None:
    page = opened(small)
    page.get_by_label("Set", exact=True).select_option("retention test")
    listed = page.locator("#confusions .counts li")
    expect(listed.first).to_contain_text("a0→b0")
    page.get_by_label("Errors of", exact=True).select_option("base")
    expect(listed).to_have_count(1)
    expect(listed).to_have_text("zebra→horse1 adapter 0")


def test_a_clip_plays(opened: Callable[..., Page]) -> None:
    page = opened()
    row = _rows(page).first
    row.get_by_role("button", name="Play").click()
    expect(row.get_by_role("button", name="Pause")).to_be_visible()
    assert _plays(page)
    assert page.locator("audio").evaluate("each => each.duration") == pytest.approx(SECONDS, abs=0.1)
    other = _rows(page).nth(1)
    other.get_by_role("button", name="Play").click()
    expect(row.get_by_role("button", name="Play")).to_be_visible()  # one at a time
    assert _plays(page, 1)
    other.get_by_role("button", name="Pause").click()
    expect(other.get_by_role("button", name="Play")).to_be_visible()


def test_the_keyboard_goes_through_the_rows(opened: Callable[..., Page]) -> None:
    page = opened()
    page.keyboard.press("/")
    page.keyboard.press("ArrowDown")
    expect(_rows(page).first).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(_rows(page).nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    expect(_rows(page).nth(1)).to_have_attribute("aria-expanded", "true")
    expect(_rows(page).nth(1).locator(".texts")).to_contain_text("<script>alert(2)</script> words")
    page.keyboard.press("Space")
    assert _plays(page)
    page.keyboard.press("Space")
    assert page.locator("audio").evaluate("each => each.paused")
    page.keyboard.press("Tab")
    expect(_rows(page).nth(1).get_by_role("button")).to_be_focused()
    page.locator(".row").nth(1).focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowDown")
    expect(_rows(page).nth(200)).to_be_focused()
    page.keyboard.press("Home")
    expect(_rows(page).first).to_be_focused()


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_scrolls_down_only(opened: Callable[..., Page], width: int) -> None:
    page = opened(viewport={"width": width, "height": 800})
    page.keyboard.press("/")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_dark_follows_the_system_and_the_button(opened: Callable[..., Page]) -> None:
    page = opened(color_scheme="dark")
    back = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(back)
    assert sum(int(part) for part in dark.removeprefix("rgb(").removesuffix(")").split(",")) < 120
    page.get_by_role("button", name="Use light colours").click()
    assert page.evaluate(back) == "rgb(255, 255, 255)"
    page.get_by_role("button", name="Use dark colours").click()
    assert page.evaluate(back) == dark


# The contrast of text with what is painted behind it, by WCAG 2.2's formula.
CONTRAST = """element => {
    const parts = colour => colour.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
    let behind = element, opacity = 1;
    for (let each = element; each; each = each.parentElement) opacity *= Number(getComputedStyle(each).opacity);
    while (parts(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
    const pair = [parts(getComputedStyle(element).color), parts(getComputedStyle(behind).backgroundColor)].map(light);
    return opacity * (Math.max(...pair) + .05) / (Math.min(...pair) + .05);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_marked_and_right_words_can_be_read(opened: Callable[..., Page], scheme: str) -> None:
    page = opened(color_scheme=scheme)
    for mark in (".swapped", ".left-out", ".added", ".right", ".names span", ".tags span", ".clip span", "#status"):
        assert page.locator(mark).last.evaluate(CONTRAST) >= 4.5, mark


def test_the_rows_are_a_grid_that_names_its_columns(opened: Callable[..., Page]) -> None:
    grid = opened().get_by_role("treegrid", name="Utterances")
    expect(grid.get_by_role("columnheader")).to_have_count(3)
    expect(grid.get_by_role("row").nth(1).get_by_role("gridcell")).to_have_count(3)


def test_it_prints_dark_on_light_without_controls(opened: Callable[..., Page]) -> None:
    page = opened(color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(27, 31, 36)"
    expect(page.get_by_role("searchbox")).to_be_hidden()
    expect(page.locator("#confusions .counts")).to_be_visible()
