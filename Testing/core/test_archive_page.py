"""The page for quality control, driven in a headless Chromium as a person drives it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mkd_core.archive.ledger import Ledger
from mkd_core.archive.report import write_report
from mkd_core.cli import main
from Testing.support import synthetic_ledger

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (the extra `test`)")
Image = pytest.importorskip("PIL.Image")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium (Debian package chromium)")

STUDIES = 1200

#: Limit of a wait for the browser, ms: the machine may be busy.
PATIENCE_MS = 300_000


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of many studies and its page."""
    folder = tmp_path_factory.mktemp("page") / "run"
    pictures = folder.parent / "pictures"
    pictures.mkdir()
    for name, side in (("thumbnail.webp", 88), ("picture.webp", 256)):
        Image.radial_gradient("L").resize((4 * side, side)).save(pictures / name)
    with Ledger(folder, create=True) as ledger:
        synthetic_ledger.fill(ledger, STUDIES)
        synthetic_ledger.give_pictures(ledger, [pictures])
        write_report(ledger, folder / "report.html")
    return folder


@pytest.fixture(scope="module")
def rows(run) -> dict[str, dict]:
    with Ledger(run) as ledger:
        return {row["id"]: row for row in ledger.rows()}


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        # Without a sandbox of its own the browser also starts in containers; it opens nothing but our page.
        started = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"], timeout=PATIENCE_MS)
        yield started
        started.close()


@pytest.fixture()
def page(browser, run):
    """The page, opened alone in a folder where nothing lies beside it; it must load nothing and log no error."""
    alone = run.parent / "alone"
    alone.mkdir(exist_ok=True)
    shutil.copy(run / "report.html", alone / "report.html")
    context = browser.new_context(viewport={"width": 1680, "height": 1000}, accept_downloads=True, offline=True)
    context.set_default_timeout(PATIENCE_MS)
    opened = context.new_page()
    faults, requests = [], []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("request", lambda request: requests.append(request.url))
    opened.goto((alone / "report.html").as_uri())
    opened.wait_for_selector("body[data-ready]")
    yield opened
    assert faults == []
    assert [url for url in requests if not url.startswith(("data:", "blob:", alone.as_uri()))] == []
    context.close()


def shown(page) -> int:
    return int(page.inner_text("#shown").split(" of ")[0].replace(",", ""))


def column(page, number: int) -> list[str]:
    """Texts of a column of the rows in the document, from top to bottom."""
    found = page.evaluate(
        """number => [...document.querySelectorAll(".row")]
            .sort((a, b) => a.getAttribute("aria-rowindex") - b.getAttribute("aria-rowindex"))
            .map(row => row.children[number].innerText)""",
        number,
    )
    return [text.replace("●", "").strip() for text in found]


def lv(row: dict) -> float | None:
    return None if row["summary"] is None else row["summary"]["structures"]["LV"]["volume_ml"]


def test_the_most_doubtful_come_first_with_their_pictures_and_few_rows_are_in_the_document(page, rows):
    doubts = [float(text) for text in column(page, 1)]
    assert doubts == sorted(doubts, reverse=True) and doubts[0] > 15
    assert shown(page) == STUDIES
    assert page.locator(".row").count() < 40
    sync_api.expect(page.locator(".row img").first).to_have_js_property("naturalWidth", 352)
    page.evaluate("document.getElementById('list').scrollTop = 1e9")
    page.locator(f'[aria-rowindex="{STUDIES + 1}"]').wait_for(state="attached")
    assert column(page, 1)[-1] == "failed" and page.locator(".row").count() < 40


def test_a_click_on_a_column_sorts_by_it_and_back(page, rows):
    volumes = sorted((volume for row in rows.values() if (volume := lv(row)) is not None), reverse=True)
    page.click("[data-sort=LV]")
    assert column(page, 3)[:8] == [f"{volume:.0f}" for volume in volumes[:8]]
    page.click("[data-sort=LV]")
    page.evaluate("document.getElementById('list').scrollTop = 1e9")
    page.locator(f'[aria-rowindex="{STUDIES + 1}"]').wait_for(state="attached")
    assert column(page, 3)[-8:] == [f"{volume:.0f}" for volume in reversed(volumes[:8])]


def test_filters_by_warning_structure_range_outlier_and_state(page, rows):
    def with_code(row):
        return row["summary"] is not None and any(one["code"] == "touches_border" for one in row["summary"]["warnings"])

    page.select_option("#warning", "touches_border")
    assert shown(page) == sum(map(with_code, rows.values())) > 0
    page.select_option("#structure", "LV")
    page.fill("#least", "150")
    page.fill("#most", "180")
    in_range = [row for row in rows.values() if lv(row) is not None and 150 <= round(lv(row), 2) <= 180]
    assert shown(page) == sum(map(with_code, in_range)) > 0
    page.select_option("#warning", "")
    assert shown(page) == len(in_range)
    page.click("#clear")
    assert shown(page) == STUDIES
    page.check("#outliers")
    # Volumes that the cohort's maker put far away are marked, and hardly any other.
    far = [row for row in rows.values() if row["severity"] == "red"]
    assert len(far) <= shown(page) < len(far) + 0.02 * STUDIES
    assert page.locator(".row .outlier").count() > 0
    page.click("#clear")
    page.click("[data-show=failed]")
    assert shown(page) == sum(row["state"] == "failed" for row in rows.values())
    assert "No heart was found" in page.inner_text("#detail")
    page.click("#clear")
    wanted = next(iter(rows))
    page.fill("#search", wanted[:12])
    assert shown(page) == 1 and wanted in page.inner_text("#detail")


def test_a_range_is_chosen_by_dragging_over_a_distribution(page):
    box = page.locator("[data-key=LV] svg").bounding_box()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 10)
    page.mouse.up()
    assert 0 < shown(page) < STUDIES
    low, high = (float(page.input_value(field)) for field in ("#least", "#most"))
    assert 0 < low < high
    assert all(low - 1 <= float(text) <= high + 1 for text in column(page, 3))


def test_decisions_are_saved_in_a_file_that_enters_the_ledger(page, run, rows, tmp_path):
    first = page.inner_text("#detail h2")
    page.keyboard.press("r")
    second = page.inner_text("#detail h2")
    assert second != first, "the next one is shown"
    page.fill("#note", "apex <b>missing</b>")
    page.click("[data-decision=accept]")
    third = page.inner_text("#detail h2")
    page.keyboard.press("r")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("u")
    assert page.inner_text("#reviewed").startswith("2 of ")
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert page.inner_text("#reviewed").startswith("2 of "), "a closed window loses nothing"
    page.click("[data-show=reject]")
    assert shown(page) == 1 and page.inner_text("#detail h2") == first
    with page.expect_download() as download:
        page.click("#save")
    saved = tmp_path / "review.json"
    download.value.save_as(saved)
    assert len(json.loads(saved.read_text(encoding="utf-8"))["reviews"]) == 3

    assert main(["archive", "review", str(run), str(saved)]) == 0
    with Ledger(run) as ledger:
        decided = {row["id"]: (row["decision"], row["note"]) for row in ledger.rows() if row["decided"]}
        write_report(ledger, run.parent / "alone" / "again.html")
    assert decided == {first: ("reject", None), second: ("accept", "apex <b>missing</b>"), third: (None, None)}
    page.goto((run.parent / "alone" / "again.html").as_uri())
    page.wait_for_selector("body[data-ready]")
    assert page.inner_text("#reviewed").startswith("2 of "), "a new page shows what the ledger holds"


def test_a_page_of_ten_thousand_studies_is_sorted_filtered_and_decided_on(browser, tmp_path):
    count = 10_000
    with Ledger(tmp_path / "run", create=True) as ledger:
        synthetic_ledger.fill(ledger, count, kinds=500)
        write_report(ledger, tmp_path / "report.html", pictures="none")
        most = max(filter(None, map(lv, ledger.rows())))
    context = browser.new_context(viewport={"width": 1680, "height": 1000}, offline=True)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    page.wait_for_selector("body[data-ready]")
    assert shown(page) == count and page.locator(".row").count() < 40
    page.click("[data-sort=LV]")
    assert column(page, 3)[0] == f"{most:.0f}"
    page.fill("#least", f"{most - 0.01:.2f}")
    sync_api.expect(page.locator("#shown")).to_have_text(f"{count // 500} of 10,000")
    page.keyboard.press("Escape")
    page.locator(".row").first.click()
    page.keyboard.press("r")
    sync_api.expect(page.locator(".row").first).to_contain_text("rejected")
    context.close()
