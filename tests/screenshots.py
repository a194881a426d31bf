"""Takes pictures of every page, light and dark, on a desk and on a phone.

    python tests/screenshots.py FOLDER

The pages are those of a ledger with a long, generated history.
"""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import long_history
import typer
from browser import chromium, serving
from playwright.sync_api import Browser

from daemon.service import Step

SHOP = long_history.names(1)[0]
PAGES = {
    "overview": "/", "pipeline": f"/pipelines/{SHOP}", "delta": f"/pipelines/{SHOP}/deltas/117",
    "parked": f"/pipelines/{SHOP}/deltas/115", "model": f"/pipelines/{SHOP}/models/117",
    "audit": "/audit",
}  # fmt: skip
SCREENS = {"desk": (1280, 900), "phone": (390, 844)}


def main(folder: Annotated[Path, typer.Argument(help="Where the pictures go.")]) -> None:
    """Take the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as home, chromium() as browser:
        settings = long_history.settings(Path(home), 6)
        with closing(long_history.write(Path(home) / "ledger.db", 6, 119)) as book:
            book.pause(long_history.names(2)[1], "ada", "stock-taking until Monday")
            with serving(settings, book, lambda: {SHOP: Step("training", 37, 100)}) as url:
                for name, path in PAGES.items():
                    picture(browser, url + path, folder / name)


def picture(browser: Browser, url: str, place: Path) -> None:
    """Take a page on every screen."""
    for screen, (width, height) in SCREENS.items():
        for dark in (False, True):
            context = browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme="dark" if dark else "light",
            )
            page = context.new_page()
            page.goto(url)
            page.wait_for_function("!document.querySelector('[data-load]:not(:has(#explanation))')")
            file = f"{place}-{screen}{'-dark' if dark else ''}.png"
            page.screenshot(path=file, full_page=True)
            print(file)  # noqa: T201 (a command)
            context.close()


if __name__ == "__main__":
    typer.run(main)
