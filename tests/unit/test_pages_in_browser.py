"""report.html and the page of explanations in a real browser: accessible, on a phone too, and without a network."""

import base64
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_explanation_page import page as explanations_of
from tests.unit.test_explanation_page import row
from tests.unit.test_report_page import full_report, page_of, slice_of, with_masks
from tests.unit.test_reports import FIVE, MANY, NASTY

LABELS = [*NASTY[:4], "好评", "إيجابي", "शिकायत", "x" * 200]
PAGES = {
    "single label": lambda: page_of(with_masks(full_report(LABELS, text="fine but <b>dull</b>"))),
    "several labels": lambda: page_of(several_labels(LABELS)),
    "explanations": lambda: explanations_of(row("fine but dull", "好 很好", label="<b>x</b>"), row("x" * 900)),
}


def several_labels(labels: list[str]) -> dict[str, Any]:
    from tests.unit.test_multi_label_report import report_of

    parts = full_report(labels)
    return report_of(labels) | {name: parts[name] for name in ("slices", "examples", "rows", "recipe", "versions")}


@pytest.fixture(params=PAGES)
def opened(browser: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """The browser, with a page whose parts are all unfolded."""
    path = tmp_path / "page.html"
    path.write_text(PAGES[request.param](), encoding="utf-8")
    browser.get_log("browser")
    browser.get(path.as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    yield browser
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def violations(browser: Any) -> list[tuple[str, str]]:
    """(rule of axe, an element that breaks it); axe-core checks what a machine can check of WCAG."""
    axe = files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    browser.set_script_timeout(300)
    browser.execute_script(axe)
    found = browser.execute_async_script("axe.run().then(arguments[0])")
    assert found["passes"]
    return [(rule["id"], node["html"]) for rule in found["violations"] for node in rule["nodes"]]


def test_a_page_is_accessible_asks_for_nothing_and_fits_a_phone(opened: Any) -> None:
    assert violations(opened) == []
    assert opened.execute_script("return performance.getEntriesByType('resource').map(one => one.name)") == []
    assert opened.get_log("browser") == []
    phone = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    width = "return [document.documentElement.scrollWidth, document.body.scrollWidth]"
    assert opened.execute_script(width) == [360, 360]


def test_a_phone_shows_what_a_table_is_about_without_scrolling_it(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(PAGES["single label"](), encoding="utf-8")
    phone = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    browser.get(path.as_uri())
    # (heading of the column that a reader needs, where its cells end), and where the captions do
    ends = browser.execute_script(
        "const end = one => one.getBoundingClientRect().right;"
        "const heads = [...document.querySelectorAll('thead th')];"
        "const column = head => [...head.closest('table').rows].map(row => end(row.cells[head.cellIndex]));"
        "const wanted = heads.filter(head => /95 % interval$|^TF-IDF|^of the true/.test(head.textContent));"
        "const room = head => end(head.closest('.scroll'));"
        "return [wanted.map(head => [head.textContent, Math.max(...column(head)) - room(head)]),"
        " [...document.querySelectorAll('.scroll caption')].map(end)];"
    )
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    columns, captions = ends
    assert [name for name, _ in columns] == [
        "TF-IDF baseline",
        "F1, 95 % interval",
        *["of the true label"] * 2,
        "accuracy, 95 % interval",
    ]
    assert max(end for _, end in columns) <= 0
    assert max(captions) <= 360


def printed(browser: Any) -> list[int]:
    """How many pages of A4 it has, and how many rows of its tables and of its notes on folded lists are on them."""
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    seen = "return [...document.querySelectorAll(arguments[0])].filter(one => one.checkVisibility()).length"
    counts = [browser.execute_script(seen, what) for what in ("tbody tr", ".on-paper")]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    pdf = base64.b64decode(
        browser.execute_cdp_cmd("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})["data"]
    )
    return [len(re.findall(rb"/Type\s*/Page\b", pdf)), *counts]


def test_long_lists_that_are_folded_stay_folded_on_paper_until_a_reader_unfolds_them(
    browser: Any, tmp_path: Path
) -> None:
    report, path = full_report(MANY), tmp_path / "page.html"
    report["slices"]["slices"] += [slice_of(by, name, 0.8) for by in ("label", "predicted label") for name in MANY]
    page = page_of(report)
    path.write_text(page, encoding="utf-8")
    browser.get(path.as_uri())
    assert browser.execute_script("return document.querySelector('.on-paper').checkVisibility()") is False
    pages, rows, notes = printed(browser)
    assert pages <= 9
    hidden = [
        int(count) for count in re.findall(r"(\d+) more [a-z]+ are not printed", path.read_text(encoding="utf-8"))
    ]
    assert notes == len(hidden) == 4
    browser.execute_script("document.querySelectorAll('details.long').forEach(one => { one.open = true; })")
    unfolded = printed(browser)
    assert unfolded[1:] == [rows + sum(hidden), 0]
    assert unfolded[0] > 2 * pages
    # A short list is printed, though it is folded.
    short = full_report(FIVE)
    short["slices"]["slices"] += [slice_of("label", f"name {n}", 0.8) for n in range(20)]
    path.write_text(page_of(short), encoding="utf-8")
    browser.get(path.as_uri())
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    last = "return [...document.querySelectorAll('#slices ~ details tbody tr')].at(-1).checkVisibility()"
    assert browser.execute_script(last) is True
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_a_script_on_a_page_does_not_run(opened: Any) -> None:
    title = opened.title
    opened.execute_script(
        "const made = document.createElement('script'); made.textContent = \"document.title = 'run'\";"
        "document.body.append(made);"
    )
    assert opened.title == title
    assert any("Content Security Policy" in line["message"] for line in opened.get_log("browser"))
