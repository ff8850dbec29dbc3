"""The picture of the page for quality control in docs, of a synthetic cohort.

python -m Testing.screenshots.archive
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from mkd_core.archive import pictures
from mkd_core.archive.ledger import Ledger
from mkd_core.archive.report import write_report
from mkd_core.structures import STRUCTURES
from mkd_core.synthesis import synthesize
from Testing.support import synthetic_ledger

TARGET = Path(__file__).resolve().parents[2] / "docs" / "archive-report.png"

STUDIES, HEARTS = 1200, 8


def main() -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        drawn = []
        for seed in range(HEARTS):
            image, truth = synthesize(None, "CT", seed, spacing=1.5)
            drawn.append(folder / "pictures" / str(seed))
            drawn[-1].mkdir(parents=True)
            for file, content in pictures.draw(image, truth, "CT", STRUCTURES).items():
                (drawn[-1] / file).write_bytes(content)
        with Ledger(folder / "run", create=True) as ledger:
            synthetic_ledger.fill(ledger, STUDIES)
            synthetic_ledger.give_pictures(ledger, drawn)
            write_report(ledger, folder / "run" / "report.html")
        started = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = started.new_page(viewport={"width": 1680, "height": 1000}, color_scheme="light")
        page.goto((folder / "run" / "report.html").as_uri())
        page.wait_for_selector("body[data-ready]")
        page.keyboard.press("r")
        page.keyboard.press("a")
        page.wait_for_load_state("networkidle")
        for picture in page.locator(".row img").all():
            expect(picture).not_to_have_js_property("naturalWidth", 0)
        page.screenshot(path=TARGET)
        started.close()


if __name__ == "__main__":
    main()
