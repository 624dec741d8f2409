"""report.json, and what textcls/reporting/ shows of it: no label and no missing part can spoil that."""

import copy
import io
import json
import re

import numpy as np
import pytest

from textcls.manifest import Calibration
from textcls.reporting import picture
from textcls.reporting.picture import PNG_SIZE
from textcls.reporting.report import Baseline, NoBaseline, Report
from textcls.reporting.task_scores import Confusion
from textcls.reporting.terminal import PLAIN_WIDTH, print_report
from textcls.tasks.metrics import Counts, summarise

NASTY = [
    "[bold]red[/bold]",
    r"$\frac{x$",
    "a\nb\x1b[31m\ttab",
    "🙂👍🏽",
    "幸福",
    ":smile:",
    "x" * 200,
    "مرحبا",
]


def summary_of(labels: list[str], seed: int = 0, rows: int = 600) -> dict:
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, len(labels), rows)
    logits = draw.normal(size=(rows, len(labels)))
    logits[np.arange(rows), truth] += 2
    p = np.exp(logits)
    return summarise(Counts.of(p / p.sum(axis=1, keepdims=True), truth), labels)


def report_of(labels: list[str]) -> dict:
    return {
        "test": summary_of(labels),
        "baseline": {**summary_of(labels, seed=1), "rows_used": 4321, "features": 9, "seconds": 1.5},
        "history": [{"epoch": n, "step": 10 * n, "loss": 1 / n, "accuracy": 0.8, "macro_f1": 0.79} for n in (1, 2, 3)],
        "curve": [(step, 2 / step) for step in range(1, 31)],
        "best": {"step": 20},
        "tokens": {"percentiles": {"50": 27, "99": 56, "100": 1078}, "truncated_fraction": 0.125},
        "padding_ratio": 1.024,
        "speed": {"rows_per_s": 151.2, "tokens_per_s": 4401.0, "seconds": 118.0},
    }


TWO, FIVE, MANY = ["negative", "positive"], list("abcde"), [f"intent_{n:02}" for n in range(77)]


def printed(report: dict) -> str:
    file = io.StringIO()
    print_report(Report.model_validate(report), file)
    return file.getvalue()


def draw_report(report: dict) -> bytes:
    return picture.draw_report(Report.model_validate(report))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def cells(line: str) -> list[str]:
    return [cell for cell in line.split("  ") if cell.strip()]


def size_of(png: bytes) -> tuple[int, int]:
    from PIL import Image

    image = Image.open(io.BytesIO(png))
    image.load()
    return image.size


# --- the file --------------------------------------------------------------------------------------------------------


def test_a_baseline_is_scores_or_a_reason():
    report = report_of(TWO)
    assert isinstance(Report.model_validate(report).baseline, Baseline)
    assert isinstance(Report.model_validate(report | {"baseline": {"error": "no words"}}).baseline, NoBaseline)


def test_a_task_with_other_scores_has_them_shown_and_its_missing_parts_left_out():
    ordinal = {"rows": 40, "mean_distance": 0.25, "macro_f1": 0.5, "thresholds": [0.1, 0.9]}
    report = {"test": ordinal, "baseline": {"rows": 40, "mean_distance": 0.75, "macro_f1": 0.25}}
    lines = [[cell.strip() for cell in cells(line)] for line in printed(report).splitlines()]

    assert ["mean distance", "0.2500", "0.7500"] in lines
    assert ["macro F1", "0.5000", "0.2500"] in lines
    assert not {"accuracy", "log loss (nats)", "thresholds", "label"} & {line[0] for line in lines if line}
    assert size_of(draw_report(report)) == PNG_SIZE
    assert Report.model_validate(report).content()["test"] == ordinal


# --- the tables and the picture --------------------------------------------------------------------------------------


@pytest.fixture(params=[TWO, FIVE, MANY, NASTY], ids=["2", "5", "77", "nasty"])
def report(request):
    return report_of(request.param)


def test_the_table_sets_the_model_beside_the_baseline():
    report = report_of(TWO)
    lines = {cells(line)[0].strip(): cells(line)[1:] for line in printed(report).splitlines() if len(cells(line)) > 1}

    for name, key in [("macro F1", "macro_f1"), ("weighted F1", "weighted_f1"), ("log loss (nats)", "log_loss")]:
        shown = [cell.strip() for cell in lines[name]]
        assert shown == [f"{report[side][key]:.4f}" for side in ("test", "baseline")]
    accuracy = report["test"]["accuracy"]
    assert lines["accuracy"][0].strip() == f"{accuracy['value']:.4f}"
    assert lines["95 % interval"][0].strip() == f"{accuracy['low']:.4f} to {accuracy['high']:.4f}"


def test_each_label_has_its_figures_and_its_baseline():
    report = report_of(FIVE)
    lines = [[cell.strip() for cell in cells(line)] for line in printed(report).splitlines()]

    for name, one in report["test"]["per_class"].items():
        figures = [f"{one[key]:.4f}" for key in ("precision", "recall", "f1")]
        assert [name, *figures, str(one["support"]), f"{report['baseline']['per_class'][name]['f1']:.4f}"] in lines


def test_of_many_labels_the_worst_are_shown_and_the_table_says_so():
    report = report_of(MANY)
    text = printed(report)
    by_label = text[text.index("By label") : text.index("Most confused")]
    by_f1 = sorted(MANY, key=lambda name: report["test"]["per_class"][name]["f1"])

    assert "the 10 of 77 with the lowest F1" in by_label
    assert [name for name in MANY if name in by_label] == sorted(by_f1[:10])


def test_the_cost_is_told():
    text = printed(report_of(TWO))

    assert "50 % 27, 99 % 56, longest 1,078; 12.5% of the rows were cut" in text
    assert "[UNK]" not in text
    assert "trained in 118 s: 151 rows/s, 4,401 tokens/s" in text
    assert "padding: 2.4% on top" in text
    assert "trained on 4,321 rows in 1.5 s" in text


def test_unknown_tokens_are_told_beside_the_lengths():
    report = report_of(TWO)
    report["tokens"]["unknown_fraction"] = 0.047
    assert "4.7% of the tokens are [UNK]" in " ".join(printed(report).split())


def test_a_bundle_that_was_not_calibrated_says_nothing_of_it():
    uncalibrated = Calibration().model_dump()
    assert "calibrated" not in printed(report_of(TWO) | {"calibration": uncalibrated})


def test_the_verdict_comes_last_and_stands_in_the_picture():
    verdict = {
        "sentence": "幸福 🙂 is [bold]never[/bold] predicted $x$.",
        "notes": ["60 rows are too few to tell more."],
    }
    with_verdict = report_of(NASTY) | {"verdict": verdict}
    assert printed(with_verdict).rstrip().splitlines()[-2:] == [verdict["sentence"], *verdict["notes"]]
    assert draw_report(with_verdict) != draw_report(report_of(NASTY))
    assert Report.model_validate(with_verdict).content()["verdict"] == verdict


def test_calibration_is_told_and_abstaining_where_it_is_wanted():
    calibration = {"temperature": 1.25, "ece_before": 0.09, "ece_after": 0.021, "threshold": 0.0, "min_precision": None}
    text = printed({**report_of(TWO), "calibration": calibration})
    assert "temperature 1.25: ECE on the validation split 0.090 -> 0.021" in text
    assert "abstains" not in text

    shy = {**report_of(TWO), "calibration": calibration | {"threshold": 0.8125, "min_precision": 0.95}}
    shy["test"]["answered"] = {"rows": 450, "coverage": 0.75, "accuracy": 0.9511}
    text = " ".join(printed(shy).split())
    assert "abstains below 0.812, for 95.0% right answers: answers 75.0% of the test rows, 0.9511 of them" in text


def test_confused_pairs_come_by_rows_and_never_from_the_diagonal():
    confusion = {"labels": ["a", "b", "c"], "support": [53, 40, 3], "other_rows": 0}
    confusion["pairs"] = [[0, 0, 50], [1, 1, 31], [1, 0, 9], [0, 1, 3], [2, 1, 3]]

    found = Confusion.model_validate(confusion)
    assert found.most_confused(2) == [("b", "a", 9, 9 / 40), ("a", "b", 3, 3 / 53)]
    assert found.most_confused(9)[2:] == [("c", "b", 3, 1.0)]


def test_a_log_is_plain_text_of_bounded_width(report, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    text = printed(report)

    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= PLAIN_WIDTH
    assert max(map(len, text.splitlines())) > 40


def test_a_terminal_gets_style_but_no_command_from_a_label(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    file = Terminal()
    print_report(Report.model_validate(report_of(NASTY)), file)

    assert "\x1b[1m" in file.getvalue()
    assert "\x1b[31m" not in file.getvalue()


def test_labels_are_shown_as_they_are_written():
    text = printed(report_of(NASTY))

    for name in ("[bold]red[/bold]", r"$\frac{x$", r"a\nb\x1b[31m\ttab", ":smile:", "幸福", "🙂"):
        assert name in text


def test_a_long_label_gives_way_and_no_figure_is_cut(monkeypatch):
    report = report_of(["y" * 300, "z z " * 75])
    monkeypatch.setenv("COLUMNS", "70")
    terminal = Terminal()
    print_report(Report.model_validate(report), terminal)
    text = terminal.getvalue()

    assert "y" * 10 in text
    assert "y" * 70 not in text
    assert printed(report).count("y…") == 3
    for one in report["test"]["per_class"].values():
        assert f"{one['f1']:.4f}" in text


def test_any_encoding_can_hold_the_log():
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_report(Report.model_validate(report_of(NASTY)), file)
    file.flush()

    assert rb"\u5e78\u798f" in file.buffer.getvalue()


def test_a_failed_baseline_is_said_and_not_shown(report):
    report["baseline"] = {"error": "no baseline on 4 rows: empty vocabulary"}
    text = printed(report)

    assert text.count("TF-IDF baseline") == 1, "where it says why there is none"

    assert "no baseline on 4 rows: empty vocabulary" in text
    assert "baseline F1" not in text
    assert size_of(draw_report(report)) == PNG_SIZE


def test_the_test_result_alone_is_a_report(report):
    alone = {"test": report["test"]}

    assert "macro F1" in printed(alone)
    assert "baseline" not in printed(alone)
    assert not re.search(r" -( |$)", printed(alone), re.MULTILINE), "no column of dashes"
    assert size_of(draw_report(alone)) == PNG_SIZE


def test_no_test_rows_leave_dashes():
    report = {"test": summarise(Counts.zero(2), TWO), "baseline": summarise(Counts.zero(2), TWO)}

    assert "Test split: 0 rows" in printed(report)
    assert size_of(draw_report(report)) == PNG_SIZE


def test_one_epoch_is_a_curve():
    report = report_of(TWO)
    report["history"], report["curve"] = report["history"][:1], [(10, 0.5)]

    assert size_of(draw_report(report)) == PNG_SIZE


@pytest.mark.filterwarnings("error")
def test_the_picture_has_its_size_whatever_the_labels(report):
    assert size_of(draw_report(report)) == PNG_SIZE


def test_the_picture_shows_the_figures(report):
    other = copy.deepcopy(report)
    other["test"] = summary_of(list(report["test"]["per_class"]), seed=9)

    assert draw_report(report) == draw_report(report)
    assert draw_report(report) != draw_report(other)


def test_drawing_leaves_the_reader_s_matplotlib_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    draw_report(report_of(TWO))

    assert dict(matplotlib.rcParams) == before


# --- slices and examples ---------------------------------------------------------------------------------------------


def with_rows(report: dict, *, worse: int, label: str = "good") -> dict:
    share = {"value": 0.25, "low": 0.2, "high": 0.3}
    slices = [
        {"by": "column from", "value": f"v{i}", "rows": 40 + i, "share": share, "worse": i < worse, "p_value": 0.01}
        for i in range(8)
    ]
    example = {"file": "a.csv", "line": 7, "labels": [label], "predicted": [], "score": 0.99}
    overall = {"value": 0.5, "low": 0.4, "high": 0.6}
    return report | {
        "slices": {"metric": "accuracy", "overall": overall, "slices": slices, "not_tested": {}},
        "examples": [{"kind": "confident_mistake", **example}, {"kind": "unsure_right", **example}],
    }


def test_slices_that_are_surely_worse_are_listed():
    text = printed(with_rows(report_of(TWO), worse=2))
    lines = [[cell.strip() for cell in cells(line)] for line in text.splitlines()]
    assert "Surely worse than the rest\n" in text
    assert ["all rows", "0.5000", "0.4000 to 0.6000"] in lines
    assert ["rows with from v0", "40", "0.2500", "0.2000 to 0.3000"] in lines
    assert ["rows with from v1", "41", "0.2500", "0.2000 to 0.3000"] in lines
    assert not any(line[0] == "rows with from v2" for line in lines if line)
    assert "worse than the rest: 5 of 7" in printed(with_rows(report_of(TWO), worse=7))
    assert "none of 8 slices of the rows is surely worse than the rest" in printed(with_rows(report_of(TWO), worse=0))


def test_rows_worth_reading_are_pointed_at():
    text = printed(with_rows(report_of(TWO), worse=0, label="a\x1b[31mb\nc"))
    assert "worth reading, in the report: confident mistakes (1), unsure right answers (1)" in text
    assert "the most confident mistake: a.csv:7, a\\x1b[31mb\\nc taken for no label" in text


def test_slices_and_examples_are_read_and_written_as_they_are():
    report = json.loads(json.dumps(with_rows(report_of(TWO), worse=1)))
    assert Report.model_validate(report).content() == {"format_version": 1} | report
