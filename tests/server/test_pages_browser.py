"""The page as a person uses it: Debian's Chromium, headless, against a real server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.server.process import Server, serving

CHROMIUM = shutil.which("chromium")
KEY = "the key of the page"
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SLOW_MS = 60_000

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="system package chromium is missing"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    output = tmp_path_factory.mktemp("page") / "output"
    with serving(Path("demo"), output, "--num-threads", "1", "--api-key", KEY) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield made
        made.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1280, "height": 900})
    made.set_default_timeout(SLOW_MS)
    expect.set_options(timeout=SLOW_MS)
    yield made
    made.close()


def open_page(context: BrowserContext, demo: Server, where: str = "") -> tuple[Page, list[str]]:
    """The page with its key entered, and what goes wrong in it from then on."""
    page = context.new_page()
    wrong: list[str] = []
    page.goto(f"{demo.url}/{where}")
    expect(page.locator("#model")).to_have_text("This server needs an API key.")
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda told: wrong.append(told.text) if told.type == "error" else None)
    page.fill("#api-key", KEY)
    page.press("#api-key", "Tab")
    expect(page.locator("#model")).to_have_text("demo, context 2048 tokens")
    return page, wrong


def test_chat_shows_tokens_with_ids_and_times(context: BrowserContext, demo: Server) -> None:
    page, wrong = open_page(context, demo)
    page.fill("[name=max_tokens]", "12")
    page.fill("[name=temperature]", "0")
    page.focus("[name=prompt]")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#facts")).to_contain_text("ended by")
    expect(page.locator("#facts")).to_contain_text("12 out")
    assert page.locator("#turns .assistant span").inner_text()
    page.click("#token-view summary")
    assert page.locator("#tokens button").count() == 12
    page.locator("#tokens button").nth(3).press("Enter")
    expect(page.locator("#token-facts")).to_contain_text("logprob")
    expect(page.locator("#token-facts")).not_to_contain_text("id undefined")
    assert page.locator("#gaps rect").count() == 11
    page.fill("[name=prompt]", "And then?")
    page.click("#send")
    expect(page.locator("#turns .assistant")).to_have_count(2)
    expect(page.locator("#facts")).to_contain_text("ended by")
    assert wrong == []


def test_completion_stop_and_errors(context: BrowserContext, demo: Server) -> None:
    page, _ = open_page(context, demo)
    page.check("[value=completion]")
    page.fill("[name=prompt]", "Once upon a time")
    page.fill("[name=max_tokens]", "2000")
    page.click("#send")
    expect(page.locator("#turns .assistant span")).not_to_be_empty()
    page.keyboard.press("Escape")
    expect(page.locator("#facts")).to_contain_text("ended by you")
    page.fill("[name=max_tokens]", "100000")
    page.click("#send")
    expect(page.locator("#turns .error")).to_contain_text("context")
    expect(page.locator("#send")).to_be_enabled()


def test_the_dashboard_explains_a_request(context: BrowserContext, demo: Server) -> None:
    page, wrong = open_page(context, demo)
    page.fill("[name=max_tokens]", "8")
    page.click("#send")
    expect(page.locator("#facts")).to_contain_text("ended by")
    page.focus("#tab-play")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#play")).to_be_hidden()
    expect(page.locator("#state")).to_contain_text("healthy")
    assert page.locator("#charts svg").count() == 8
    row = page.locator("#requests tbody tr").first
    row.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#story")).to_be_visible()
    expect(page.locator("#story-body")).to_contain_text("decode")
    shares = page.locator("#story-body tr td:nth-child(3)").all_inner_texts()
    assert sum(float(share.split()[0]) for share in shares) == pytest.approx(100, abs=1)
    page.keyboard.press("Escape")
    expect(page.locator("#story")).to_be_hidden()
    assert wrong == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_narrow_window(browser: Browser, demo: Server, scheme: str) -> None:
    narrow = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
    page, _ = open_page(narrow, demo, "#dash")
    for tab in ("#tab-dash", "#tab-play"):
        page.click(tab)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    narrow.close()
