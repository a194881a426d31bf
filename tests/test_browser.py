"""The pages in a real browser: what is seen, what is done, by whom, on which screen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

import long_history
import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import WRITER, Watched, chromium, serving
from builders import delta, record
from playwright.sync_api import Browser, expect

from config.settings import Settings
from daemon.ledger import Ledger
from daemon.service import Step
from handlers.facts import Drifted, State

HOSTILE = "<script>document.title='taken over'</script>"
SHOP = "shop-01"
PAGES = {
    "overview": "/", "pipeline": f"/pipelines/{SHOP}", "older": f"/pipelines/{SHOP}?before=20",
    "delta": f"/pipelines/{SHOP}/deltas/37", "parked": f"/pipelines/{SHOP}/deltas/23",
    "model": f"/pipelines/{SHOP}/models/37",
    "what if": f"/pipelines/{SHOP}/what-if/run-37", "audit": "/audit", "missing": "/pipelines/none",
}  # fmt: skip
STEPS = {SHOP: Step("training", 37, 100)}
SCREENS = {"desk": (1280, 900), "phone": (375, 740)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Share one browser."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Ledger]:
    """Write the history of two pipelines."""
    with closing(long_history.write(tmp_path / "ledger.db", 2, 39)) as book:
        yield book


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Configure two pipelines."""
    return long_history.settings(tmp_path, 2)


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    """Open an empty page; in the end nothing was complained of."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB")
    watched = Watched(context.new_page())
    yield watched
    context.close()
    assert watched.complaints == []


SCHEMES: list[Literal["light", "dark"]] = ["light", "dark"]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("screen", SCREENS)
def test_every_page_is_for_everybody(
    browser: Browser,
    book: Ledger,
    settings: Settings,
    screen: str,
    scheme: Literal["light", "dark"],
) -> None:
    """By axe no page has a fault, none is wider than the screen, and none asks anybody else.

    Nothing is complained of in the console, where the browser tells what its policy forbade.
    """
    book.pause(long_history.names(2)[1], "ada", "stock-taking")
    width, height = SCREENS[screen]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    with serving(settings, book, lambda: STEPS) as url:
        for name, path in PAGES.items():
            watched = Watched(context.new_page())
            watched.page.goto(url + path)
            expect(watched.page.locator("h1")).to_be_visible()
            if watched.page.locator("[data-load]").count():
                expect(watched.page.locator("#explanation")).to_be_visible()
            found = Axe().run(watched.page)
            assert found.violations_count == 0, f"{name}: {found.generate_report()}"
            wide = watched.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, name
            assert all(asked.startswith(url) for asked in watched.asked), watched.asked
            assert watched.complaints == [], name
            watched.page.close()
    context.close()


def test_what_is_decided_meanwhile_is_seen(
    watched: Watched, book: Ledger, settings: Settings
) -> None:
    """A page that is open shows the next verdict and the work that goes on, without a reload."""
    steps = {SHOP: Step("training", 1, 100)}
    with serving(settings, book, lambda: steps) as url:
        watched.page.goto(f"{url}/pipelines/{SHOP}")
        watched.page.evaluate("window.kept = true")
        expect(watched.page.locator("#tiles progress")).to_have_attribute("value", "1")
        steps[SHOP] = Step("training", 60, 100)
        expect(watched.page.locator("#tiles progress")).to_have_attribute(
            "value", "60", timeout=15_000
        )
        steps[SHOP] = Step()
        work = book.open(SHOP, delta(40))
        book.settle(record(work, State.PROMOTED, 40, "37", "promoted: seen by everybody"))
        expect(watched.page.locator("#timeline")).to_contain_text(
            "promoted: seen by everybody", timeout=15_000
        )
        expect(watched.page.locator("#tiles .big").first).to_have_text("version 40")
        assert watched.page.evaluate("window.kept")


def test_a_person_acts_by_keyboard_and_takes_it_back(
    watched: Watched, book: Ledger, settings: Settings
) -> None:
    """Each action asks first and may be cancelled; who did it and why is on record."""
    with serving(settings, book) as url:
        page = watched.page
        page.goto(f"{url}/pipelines/{SHOP}")
        pause = page.get_by_role("button", name="Pause")
        pause.focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_contain_text(f"Pause {SHOP}?")
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()
        assert book.standing(SHOP).paused is None
        pause.press("Enter")
        page.keyboard.type("stock-taking")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.locator("#notices")).to_contain_text("stock-taking")
        assert book.standing(SHOP).paused == "stock-taking"
        page.get_by_role("status").get_by_role("button", name="Undo").press("Enter")
        expect(page.locator("#notices")).not_to_contain_text("stock-taking")
        assert book.standing(SHOP).paused is None
        page.goto(f"{url}/audit")
        row = page.locator("tbody tr", has_text="stock-taking")
        expect(row).to_contain_text("ada")
        expect(row).to_contain_text("pause")


def test_what_cannot_be_taken_back_needs_a_reason(
    watched: Watched, book: Ledger, settings: Settings
) -> None:
    """A parked delta is not dropped without one; what is refused is told in the dialog."""
    with serving(settings, book) as url:
        page = watched.page
        page.goto(f"{url}/pipelines/{SHOP}")
        page.get_by_role("button", name="Drop").click()
        page.get_by_role("button", name="Do it").click()
        expect(page.get_by_role("dialog")).to_be_visible()
        assert len(book.parked(SHOP)) == 1
        page.get_by_label("Why?").fill("test data")
        page.get_by_role("button", name="Do it").click()
        expect(page.locator("#parked")).to_have_text("")
        assert book.parked(SHOP) == []
        page.goto(f"{url}/pipelines/{SHOP}/models/36")
        page.get_by_role("button", name="Promote").click()
        page.get_by_label("Why?").fill("the board wishes it")
        page.get_by_role("button", name="Do it").click()
        expect(page.locator("#head")).to_contain_text("serves")
        champion = book.champion(SHOP)
        assert champion
        assert champion.reason == "forced by ada: the board wishes it"


@pytest.mark.parametrize("who", [{**WRITER, "remote-user-perm": "RO"}, {}])
def test_who_may_not_act_sees_no_button(
    watched: Watched, book: Ledger, settings: Settings, who: dict[str, str]
) -> None:
    """Readers see all that there is, and nothing to press."""
    with serving(settings, book, who=who) as url:
        for path in PAGES.values():
            watched.page.goto(url + path)
            expect(watched.page.locator("h1")).to_be_visible()
            expect(watched.page.locator("[data-act]")).to_have_count(0)


def test_no_text_becomes_markup(watched: Watched, book: Ledger, settings: Settings) -> None:
    """A column, a reason and a person named like a script are shown, and run nowhere."""
    work = book.open(SHOP, delta(40))
    moved = Drifted(HOSTILE, "feature", 0.3, "large", HOSTILE)
    closed = record(work, State.KEPT, 40, "37", HOSTILE)
    book.settle(replace(closed, drift=(moved,), closed_at=datetime.now(timezone.utc)))
    book.pause(SHOP, HOSTILE, HOSTILE)
    with serving(settings, book) as url:
        for path in ("/", *(f"/pipelines/{SHOP}{end}" for end in ("", "/deltas/40")), "/audit"):
            watched.page.goto(url + path)
            expect(watched.page.locator("main")).to_contain_text(HOSTILE)
            assert watched.page.title() != "taken over"


def test_a_row_is_changed_and_scored_anew(
    watched: Watched, book: Ledger, settings: Settings
) -> None:
    """Both models answer, with what each feature adds; the address tells the row."""
    with serving(settings, book) as url:
        page = watched.page
        page.goto(f"{url}/pipelines/{SHOP}/deltas/37")
        page.get_by_role("link", name="What if").click()
        expect(page.locator(".big").first).to_have_text("0.8000")
        page.get_by_label("transaction_amount").fill("50")
        page.keyboard.press("Enter")
        expect(page.locator(".big").first).to_have_text("0.5000")
        expect(page.locator("tbody tr").first).to_contain_text("+0.0000")
        assert "transaction_amount=50" in page.url
        page.get_by_role("link", name="as it was").click()
        expect(page.locator(".big").first).to_have_text("0.8000")


def test_it_works_below_a_prefix(watched: Watched, book: Ledger, settings: Settings) -> None:
    """Behind a proxy that takes a prefix off, every link and every action finds its way."""
    with serving(settings, book, prefix="/team/retraind") as url:
        page = watched.page
        page.goto(f"{url}/")
        page.get_by_role("link", name=SHOP, exact=True).click()
        page.locator("#timeline").get_by_role("link", name="37", exact=True).click()
        expect(page.locator("#explanation")).to_be_visible()
        page.get_by_role("link", name="version 37").first.click()
        expect(page.locator("h1")).to_contain_text("Version 37")
        page.get_by_role("link", name="Pipelines").click()
        expect(page.locator("#sum")).to_contain_text("2 pipelines")
        page.goto(f"{url}/pipelines/{SHOP}")
        page.get_by_role("button", name="Pause").click()
        page.get_by_role("button", name="Do it").click()
        expect(page.locator("#notices")).to_contain_text("Paused")
        assert all(asked.startswith(url) for asked in watched.asked)
