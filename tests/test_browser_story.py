"""The whole story as it is seen in a browser: a real daemon, table, MLflow and endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Watched, chromium
from playwright.sync_api import HttpCredentials, expect
from sites import PATIENCE, Site

pytestmark = [pytest.mark.real, pytest.mark.timeout(280)]
TOKEN = "open sesame, if you please"  # noqa: S105 (of this test alone)
SLOW = PATIENCE * 1000


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Give a site whose pages take a token."""
    monkeypatch.setenv("RETRAIND_HTTP__TOKEN", TOKEN)
    site = Site(tmp_path)
    yield site
    site.close()


def test_from_append_to_promoted_it_is_seen(site: Site) -> None:
    """One page, never reloaded, tells of the wait, the work and the promotion.

    Then the model's explanation comes from MLflow, a changed row is scored by it, and who logged in
    pauses the pipeline under their name.
    """
    site.start()
    with chromium() as browser:
        login = HttpCredentials(username="ann", password=TOKEN)
        watched = Watched(browser.new_context(http_credentials=login).new_page())
        page = watched.page
        page.goto(f"http://127.0.0.1:{site.port}/login")
        expect(page.locator("h1")).to_contain_text("payments")
        page.evaluate("window.kept = true")
        expect(page.locator("#tiles")).to_contain_text("nothing yet")
        site.run("append", "--rows", "3000")
        expect(page.locator("#timeline")).to_contain_text("promoted", timeout=SLOW)
        expect(page.locator("#tiles .big").first).to_have_text("version 1")
        expect(page.locator("#past")).to_contain_text("held-out predictions agree", timeout=SLOW)
        expect(page.locator("#tiles")).to_contain_text("level")
        assert page.evaluate("window.kept")
        page.get_by_role("button", name="Pause").click()
        page.get_by_label("Why?").fill("lunch")
        page.get_by_role("button", name="Do it").click()
        expect(page.locator("#notices")).to_contain_text("lunch")
        page.locator("#timeline").get_by_role("link", name="1", exact=True).click()
        expect(page.locator("#explanation")).to_contain_text("transaction_amount", timeout=SLOW)
        page.get_by_role("link", name="What if").click()
        before = page.locator(".big").first.text_content(timeout=SLOW)
        page.get_by_label("transaction_amount").fill("123456")
        page.get_by_role("button", name="Score it").click()
        expect(page.locator(".big").first).not_to_have_text(before or "")
        assert watched.complaints == []
    assert site.ask("status")["pipelines"][0]["paused"] == "lunch"
    assert TOKEN not in site.log()
