"""report.html: one page for every report, bounded, the same for the same report, and nothing on it is run."""

import json
import re
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any

import pytest

from tests.unit.test_multi_label_report import report_of as multi_label_report_of
from tests.unit.test_reports import FIVE, MANY, NASTY, TWO, report_of
from textcls.plain_text import json_text
from textcls.reporting import page
from textcls.reporting.charts import Chart, Series, table, thinned
from textcls.reporting.page import report_page
from textcls.reporting.page_template import MOST_BYTES
from textcls.reporting.report import Report
from textcls.reporting.verdict import judged
from textcls.settings.recipe import Recipe

THOUSANDS = [f"label number {n}" for n in range(2_500)]
VOID = {"meta", "path", "circle"}


class Elements(HTMLParser):
    """The elements of a page, with their attributes; fails on one that is not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, Any]]] = []
        self.texts: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style" and data.strip():
            self.texts.append(" ".join(data.split()))

    def tags(self) -> list[str]:
        return [tag for tag, _ in self.found]


def proportion(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def slice_of(by: str, value: str, share: float, *, worse: bool = False) -> dict[str, Any]:
    return {"by": by, "value": value, "rows": 90, "share": proportion(share), "worse": worse, "p_value": 0.01}


def example(kind: str, labels: list[str], text: str | None = None, line: int = 7) -> dict[str, Any]:
    row = {"kind": kind, "file": 'mails "2".csv', "line": line, "labels": labels[:1], "predicted": [], "score": 0.9}
    if text is not None:
        starts = range(0, len(text) - 4, 5)
        row["texts"] = [text, text]
        row["words"] = [{"text": i, "start": n, "end": n + 4, "effect": n - 6} for i in (0, 1) for n in starts]
    return row


def full_report(labels: list[str], *, text: str | None = None, examples: int = 2) -> dict[str, Any]:
    """A report with every part that a training can have."""
    kinds = ("confident_mistake", "unsure_right")
    return report_of(labels) | {
        "slices": {
            "metric": "accuracy",
            "overall": proportion(0.8),
            "slices": [slice_of("length", "1 to 16", 0.8), slice_of("column channel", labels[0], 0.5, worse=True)],
            "not_tested": {"file": "There is one file."},
        },
        "examples": [example(kind, labels, text, line) for kind in kinds for line in range(examples)],
        "rows": {"read": 10, "train": 6, "rejects": 4, "outside_where": 3, "reject_reasons": {"empty <text>": 4}},
        "faithfulness": {
            "method": "leave_one_out",
            "explanations": 50,
            "comprehensiveness": 0.37,
            "sufficiency": 0.02,
            "random_comprehensiveness": 0.1,
            "random_sufficiency": 0.31,
        },
        "recipe": Recipe().model_dump(mode="json"),
        "versions": {"python": "3.11.9", "textcls": "0.1.0"},
        "written_at": 1_795_633_549.0,
    }


def several_labels(labels: list[str]) -> dict[str, Any]:
    """A report of a task with several labels a row; of more than 100 labels, only five have pairs."""
    report = multi_label_report_of(labels if len(labels) <= 100 else FIVE)
    one = next(iter(report["test"]["per_class"].values()))
    report["test"]["per_class"] |= dict.fromkeys(labels, one)
    return report


def page_of(report: dict[str, Any]) -> str:
    return report_page(judged(Report.model_validate(report)))


PRIVATE = {
    "epsilon": 7.9,
    "delta": 1e-4,
    "unit": "row",
    "accountant": "PRV, opacus 1.6.0",
    "sampling_rate": 0.2,
    "steps": 120,
    "noise_multiplier": 1.25,
    "max_grad_norm": 0.1,
    "not_covered": ["The label names are not protected.", "<b>Test rows</b> are not protected."],
    "other_runs": ["first was trained on the same rows with epsilon 7.90."],
}

MASKED = {
    "rows": {"email": 1_204, "phone": 0, "employee_id": 3},
    "placeholders": {
        "train": {"email": 1_100, "phone": 0, "employee_id": 2},
        "val": {"email": 80, "phone": 0, "employee_id": 1},
        "test": {"email": 95, "phone": 0, "employee_id": 0},
    },
}


def with_masks(report: dict[str, Any], masked: dict[str, Any] = MASKED) -> dict[str, Any]:
    return report | {"rows": report["rows"] | {"masked": masked}}


REPORTS = {
    "two labels": full_report(TWO),
    "nasty labels": full_report(NASTY, text="<b>x</b> \u202e\x1b[31m good"),
    "77 labels": full_report(MANY, text="fine but dull"),
    "several labels": multi_label_report_of(FIVE),
    "several nasty labels": multi_label_report_of(NASTY),
    "an evaluation": {
        key: value for key, value in full_report(FIVE).items() if key not in ("history", "curve", "best", "baseline")
    }
    | {"title": "Evaluation", "bundle": {"uri": "runs/a/bundle", "digest": "0" * 64}, "files": ["a.csv", "b.csv"]},
    "an early report": report_of(TWO),
    "private training": full_report(TWO) | {"privacy": PRIVATE},
    "masked texts": with_masks(full_report(TWO)),
    "an evaluation of masked texts": with_masks(full_report(TWO), {"rows": {"<b>kind</b>": 1}}),
    "without a baseline": report_of(TWO) | {"baseline": {"error": "no words"}},
    "scores alone": {"test": {"rows": 40, "mean_distance": 0.25}},
    "a loss that is no number": report_of(TWO)
    | {"curve": [(1, 2.0), (2, float("inf")), (3, float("nan"))], "best": {"step": 90}, "history": []},
    "a label without rows": report_of(TWO)
    | {"test": {"rows": 9, "per_class": {"a": {"precision": 0, "recall": 0, "f1": 0, "support": 0}}}},
    "no rows": {"test": {"rows": 0, "accuracy": {"value": None, "low": 0.0, "high": 1.0}}},
}


@pytest.fixture(params=REPORTS.values(), ids=REPORTS)
def report(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


def test_every_report_has_a_page_that_runs_and_loads_nothing(report: dict[str, Any]) -> None:
    shown = page_of(report)
    elements = Elements(shown)
    assert not {"script", "link", "img", "iframe", "object", "embed", "form", "b", "base"} & set(elements.tags())
    attributes = {name for _, found in elements.found for name in found}
    assert not {name for name in attributes if name.startswith("on")}
    assert not {"src", "srcset", "action"} & attributes
    assert all(found["href"].startswith("#") for tag, found in elements.found if tag == "a")
    assert "url(" not in shown
    assert "@import" not in shown
    policy = next(found["content"] for _, found in elements.found if "http-equiv" in found)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert not any(ord(char) < 32 and char != "\n" for char in shown)
    assert "\u202e" not in shown


def test_a_page_can_be_read_without_seeing_it(report: dict[str, Any]) -> None:
    elements = Elements(page_of(report))
    tags = elements.tags()
    assert dict(elements.found)["html"] == {"lang": "en"}
    assert tags.count("h1") == 1
    assert tags.count("caption") == tags.count("table")
    assert all("scope" in found for tag, found in elements.found if tag == "th")
    drawn = [found for tag, found in elements.found if tag == "svg" and found.get("aria-hidden") != "true"]
    assert all(found["role"] == "img" for found in drawn)
    assert tags.count("figure") == tags.count("desc") == tags.count("figcaption") == len(drawn)
    ids = [found["id"] for _, found in elements.found if "id" in found]
    assert len(ids) == len(set(ids))
    wanted = {found["href"][1:] for tag, found in elements.found if tag == "a"}
    named = " ".join(found.get("aria-labelledby", "") for _, found in elements.found).split()
    assert wanted | set(named) <= set(ids)


def test_equal_reports_have_equal_pages_also_when_read_from_their_file(report: dict[str, Any]) -> None:
    found = judged(Report.model_validate(report))
    stored = Report.model_validate(json.loads(json_text(found.content())))
    assert report_page(found) == report_page(found) == report_page(stored)


@pytest.mark.parametrize("labels", [MANY, THOUSANDS, ["好" * 5_000 + str(n) for n in range(20)]], ids=len)
@pytest.mark.parametrize("make", [full_report, several_labels])
def test_a_page_is_at_most_400_kb_and_says_what_is_left_out(make: Any, labels: list[str]) -> None:
    shown = page_of(make(labels))
    assert len(shown.encode()) <= MOST_BYTES
    if len(labels) == 2_500:
        more = 2_500 - 100 if make is full_report else 2_505 - 100
        assert (
            f"{more:,} more labels with a higher F1 are not shown here; report.json has them." in Elements(shown).texts
        )


def test_long_texts_leave_room_for_fewer_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    report = full_report(TWO, text="好 " * 1_000, examples=20)
    whole = page_of(report)
    assert len(whole.encode()) <= MOST_BYTES
    assert "more rows are not shown here" not in whole
    monkeypatch.setattr(page, "MOST_BYTES", len(whole.encode()) - 1)
    smaller = page_of(report)
    assert len(smaller.encode()) < len(whole.encode())
    assert smaller.count("10 more rows are not shown here") == 2


def test_the_order_is_verdict_scores_labels_confusion_calibration_slices_rows_data_settings() -> None:
    elements = Elements(page_of(full_report(FIVE)))
    parts = [found["id"] for tag, found in elements.found if tag == "h2"]
    assert parts == [
        *("scores", "labels", "confusion", "calibration", "slices", "examples", "faithfulness", "training"),
        *("data", "settings"),
    ]
    texts = elements.texts
    verdict = judged(Report.model_validate(full_report(FIVE))).verdict
    assert verdict
    assert texts.index(verdict.sentence) < texts.index("accuracy")


def test_scores_stand_beside_the_baseline_s_with_their_intervals() -> None:
    report = full_report(TWO)
    texts = Elements(page_of(report)).texts
    accuracy, other = report["test"]["accuracy"], report["baseline"]["accuracy"]
    for share in (accuracy, other):
        at = texts.index(f"{share['value']:.4f}")
        assert texts[at + 1] == f"{share['low']:.4f} to {share['high']:.4f}"
    gain = accuracy["value"] - other["value"]
    assert f"{abs(gain):.4f} {'better' if gain > 0 else 'worse'}" in texts
    # Of a loss, less is better.
    gain = report["baseline"]["log_loss"] - report["test"]["log_loss"]
    assert f"{abs(gain):.4f} {'better' if gain > 0 else 'worse'}" in texts


def test_the_labels_that_need_attention_come_first() -> None:
    report = full_report(MANY)
    texts = Elements(page_of(report)).texts
    by_f1 = sorted(MANY, key=lambda name: report["test"]["per_class"][name]["f1"])
    assert [text for text in texts[texts.index("Labels", 20) :] if text in MANY][:77] == by_f1


def test_texts_are_shown_only_if_the_report_has_them() -> None:
    assert "report.texts=true" in page_of(full_report(TWO))
    shown = page_of(full_report(TWO, text="fine but dull"))
    assert "report.texts=true" not in shown
    assert "<mark class=" in shown
    assert "First text:" in shown


def test_slices_that_are_surely_worse_come_first_and_say_so() -> None:
    texts = Elements(page_of(full_report(FIVE))).texts
    assert texts.index("column channel") < texts.index("surely worse") < texts.index("1 to 16")
    assert texts[texts.index("1 to 16") - 1] == "length in tokens"
    assert texts.count("surely worse") == 1


def test_slices_of_a_group_of_many_unfold_after_the_others() -> None:
    report = full_report(FIVE)
    report["slices"]["slices"] += [slice_of("label", f"name {n}", 0.8, worse=n == 50) for n in range(77)]
    report["slices"]["slices"].append(slice_of("confidence", "0.5 to under 0.6", 0.8))
    texts = Elements(page_of(report)).texts
    unfold = texts.index("76 more slices, of groups with many")
    assert texts.index("name 50") < texts.index("1 to 16") < texts.index("0.5 to under 0.6") < unfold
    assert [text for text in texts if text.startswith("name ")].index("name 0") == 1
    assert unfold < texts.index("name 0") < texts.index("name 76")
    report["slices"]["slices"] += [slice_of(f"column {n}", "x", 0.8) for n in range(200)]
    shown = page_of(report)
    assert shown.count('<td class="strip"') == 120 + len(FIVE)
    assert "160 more slices are not shown here" in shown


@pytest.mark.parametrize(("folded", "long"), [(20, False), (21, True)])
def test_a_folded_list_of_more_than_20_rows_says_what_is_not_printed(folded: int, long: bool) -> None:
    report = full_report(FIVE)
    report["slices"]["slices"] += [slice_of("label", f"name {n}", 0.8) for n in range(folded)]
    shown = page_of(report)
    assert (f"{folded} more slices are not printed, since their list is folded" in shown) == long


def test_the_head_names_the_model_and_the_data() -> None:
    report = full_report(TWO)
    report["recipe"]["data"]["csv"] = [f"mails <{n}>.csv" for n in range(5)]
    texts = Elements(page_of(report)).texts
    assert texts[texts.index("model") + 1] == report["recipe"]["model"]["pretrained"]
    assert texts[texts.index("data") + 1] == "mails <0>.csv, mails <1>.csv, mails <2>.csv and 2 more"


def test_faithfulness_stands_beside_a_random_order() -> None:
    texts = Elements(page_of(full_report(TWO))).texts
    at = texts.index("comprehensiveness")
    assert texts[at + 2 : at + 4] == ["0.370", "0.100"]
    at = texts.index("sufficiency")
    assert texts[at + 2 : at + 4] == ["0.020", "0.310"]


def test_private_training_states_its_bound_what_it_leaves_open_and_other_runs() -> None:
    texts = Elements(page_of(full_report(TWO) | {"privacy": PRIVATE})).texts
    assert texts[texts.index("epsilon, delta") + 1] == "7.90, 0.0001"
    assert texts[texts.index("noise multiplier") + 1] == "1.25, times a norm of 0.1 of a row's gradient"
    assert {*PRIVATE["not_covered"], *PRIVATE["other_runs"]} <= set(texts)
    alone = page_of(full_report(TWO) | {"privacy": PRIVATE | {"other_runs": []}})
    assert "No other run on the same rows is known" in alone
    assert 'id="privacy"' not in page_of(full_report(TWO))


def test_the_account_says_which_masks_were_on_and_what_they_found_in_each_split() -> None:
    texts = Elements(page_of(with_masks(full_report(TWO)))).texts
    at = texts.index("kind")
    assert texts[at : at + 5] == ["kind", "rows", "train", "val", "test"]
    assert texts[at + 5 : at + 10] == ["email", "1,204", "1,100", "80", "95"]
    assert texts[at + 10 : at + 15] == ["phone", "0", "0", "0", "0"]
    assert texts[at + 15 : at + 20] == ["employee_id", "3", "2", "1", "0"]
    assert texts.index("Why rows were rejected; rejects.parquet lists each of them") < at < texts.index("row")
    # An evaluation splits nothing.
    texts = Elements(page_of(with_masks(full_report(TWO), {"rows": {"email": 7}}))).texts
    at = texts.index("kind")
    assert texts[at : at + 4] == ["kind", "rows", "email", "7"]
    assert "masked" not in page_of(full_report(TWO))


def test_many_kinds_of_personal_data_are_counted_beyond_the_first_50() -> None:
    shown = page_of(with_masks(full_report(TWO), {"rows": {f"kind_{n}": n for n in range(60)}}))
    assert "kind_49<" in shown
    assert "kind_50<" not in shown
    assert "10 more kinds are not shown here" in shown


def test_settings_and_versions_are_on_the_page_the_changed_ones_first() -> None:
    report = full_report(TWO)
    report["recipe"]["train"]["epochs"] = 7
    texts = Elements(page_of(report)).texts
    changed, every = texts.index("Settings that differ from the defaults"), texts.index("The recipe, with defaults")
    assert texts[changed:every][1:5] == ["setting", "value", "train.epochs", "7"]
    assert texts[texts.index("train.epochs", every) + 1] == "7"
    assert texts[texts.index("data.header") + 1] == "true"
    assert texts[texts.index("textcls") + 1] == "0.1.0"


def test_the_numbers_of_a_chart_are_its_table_and_its_points_lie_inside() -> None:
    series = Series("loss", "model", [(1.0, 2.5), (2.0, 0.1), (40.0, 0.3)])
    chart = Chart("a", "t", "d", "x", "y", [series], table(["x", "y"], [["1", "2.5"]]), best_x=2)
    left, top, right, bottom = chart.frame
    for x, y, _ in chart.dots(series):
        assert left <= float(x) <= right
        assert top <= float(y) <= bottom
    assert [text for _, text in chart.y_ticks] == ["0.0", "0.5", "1.0", "1.5", "2.0", "2.5"]
    assert [text for _, text in chart.x_ticks] == ["10", "20", "30", "40"]
    alone = Chart("a", "t", "d", "x", "y", [Series("loss", "model", [(3.0, 0.0)])], table(["x"], []))
    assert len(alone.x_ticks) > 1
    assert "nan" not in alone.path(alone.series[0])


def test_many_points_are_thinned_to_means_and_many_rows_to_some() -> None:
    points = thinned([(float(n), 1.0) for n in range(10_001)])
    assert len(points) == 200
    assert all(loss == 1.0 for _, loss in points)
    found = table(["step"], [[str(n)] for n in range(1_000)])
    assert (found.rows[0], found.rows[-1], len(found.rows) + found.left_out) == (["0"], ["999"], 1_000)


# --- colours ---------------------------------------------------------------------------------------------------------


def schemes() -> dict[str, dict[str, str]]:
    """The colours of each scheme, by their names in the style."""
    style = files("textcls.reporting").joinpath("pages/style.css").read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"--([\w-]+): ([^;]+);", block)) for block in re.findall(r":root \{(.*?)\}", style, re.S)
    )
    return {"light": light, "dark": light | dark}


def luminance(rgb: tuple[float, ...]) -> float:
    """Relative luminance of sRGB from 0 to 255 (WCAG 2.1)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (value / 255 for value in rgb)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_a_contrast_of_4_5_on_every_ground(scheme: str) -> None:
    colours = schemes()[scheme]

    def plain(name: str) -> tuple[float, ...]:
        return tuple(int(colours[name][i : i + 2], 16) for i in (1, 3, 5))

    for ground in ("page", "panel"):
        for ink in ("ink", "quiet", "link", "model", "other"):
            assert contrast(plain(ink), plain(ground)) >= 4.5, (ink, ground)
        # The darkest cells of a matrix, and the most strongly marked words.
        for fill in ("model-fill", "other-fill"):
            share = float(colours["fill"])
            over = zip(map(float, colours[fill].split()), plain(ground), strict=True)
            mixed = tuple(share * top + (1 - share) * below for top, below in over)
            assert contrast(plain("ink"), mixed) >= 4.5, (fill, ground)
