"""Labels, columns, cells and names of files: none can break a line, command a terminal or turn what follows around."""

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textcls import progress
from textcls.command_line import exit_status, say
from textcls.data import checks
from textcls.data.rows import shown
from textcls.errors import DataError, InputError
from textcls.plain_text import json_text, visible, visible_lines
from textcls.reporting.picture import draw_report
from textcls.reporting.report import Report
from textcls.reporting.terminal import print_report
from textcls.settings.data import DataSpec
from textcls.settings.recipe import SplitSpec
from textcls.tasks.metrics import Counts, summarise

HOSTILE = {
    "line break": "a\nto do:    b",
    "line break and indent": "a\n  to do:    b",
    "other line breaks": "a\r\x0b\x0c\x1c\x85\u2028\u2029b",
    "terminal commands": "a\x1b[31m\x1b]0;title\x07\x9b2Jb",
    "tab, bell, backspace, NUL, DEL": "a\t\a\b\0\x7fb",
    "other direction": "a\u202eb\u2066c\u200f",
    "invisible": "a\u200bb\ufeff\xad",
    "half a pair": "a\ud800b",
    "undecodable byte": "a\udcffb",
}
EVERY = st.one_of(st.text(), st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp", "Zs"])))


def without_joiners(text: str) -> str:
    return text.replace("\u200d", "").replace("\u200c", "")


@given(EVERY)
def test_a_name_is_one_printable_line(text: str) -> None:
    assert without_joiners(visible(text)).isprintable()


@given(EVERY)
def test_what_is_visible_stays_as_it_is(text: str) -> None:
    assert visible(visible(text)) == visible(text)
    if text.isprintable():
        assert visible(text) == text


def test_escapes_are_those_of_python_and_a_raw_byte_is_one() -> None:
    assert visible("a\nb\x1b\u202e\U000e0001\udcff") == r"a\nb\x1b\u202e\U000e0001\xff"


@pytest.mark.parametrize("emoji", ["👨\u200d👩\u200d👧", "❤\ufe0f\u200d🔥", "👍🏽", "⭐\ufe0f"])
def test_an_emoji_of_several_stays_one_and_a_joiner_elsewhere_is_seen(emoji: str) -> None:
    assert visible(emoji) == emoji
    assert visible("a\u200db\u200d") == r"a\u200db\u200d"


@pytest.mark.parametrize("word", ["می\u200cخواهم", "क्\u200dष", "ക്\u200cക", "അവന്\u200d"])
def test_joiners_that_spell_a_word_stay(word: str) -> None:
    assert visible(word) == word
    for unseen in ("a\u200cb", "م\u200c", "\u200cم", "م\u200db", "م\u200cb"):
        assert visible(unseen) == unseen.encode("unicode_escape").decode().replace(r"\u0645", "م")


@pytest.mark.parametrize("cell", ["x" * 500, "\0" * 500, "x" * 119 + "\n", "x" * 120, ""])
def test_a_long_cell_is_cut_and_says_so(cell: str) -> None:
    assert len(shown(cell)) <= 120
    assert shown(cell).endswith("…") == (len(visible(cell)) > 120)


# --- JSON ------------------------------------------------------------------------------------------------------------

json_values = st.recursive(
    EVERY | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(EVERY, inner)
)


@given(json_values, st.sampled_from([None, 1]))
def test_json_is_the_same_content_and_valid_utf_8_that_commands_nothing(content: Any, indent: int | None) -> None:
    text = json_text(content, indent=indent)
    assert json.loads(text) == json.loads(json.dumps(content))
    assert json.loads(text.encode()) == json.loads(text)
    assert without_joiners(text.replace("\n", "")).isprintable()
    assert len(text.splitlines()) == 1 + text.count("\n")


def test_json_can_be_read_by_people() -> None:
    assert json_text({"幸福": "مرحبا 🙂 café"}) == '{"幸福": "مرحبا 🙂 café"}'


# --- every place that prints -----------------------------------------------------------------------------------------


def is_safe(text: str, name: str) -> bool:
    """Whether a text holds a name without its control characters."""
    return name not in text and all(c.isprintable() or c == "\n" for c in text)


@pytest.fixture(params=HOSTILE.values(), ids=HOSTILE)
def hostile(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_a_line_for_the_user_stays_one_line(hostile: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(f"  rejected 3: unknown_label, like {hostile}.csv:7 {hostile}: {hostile}")
    shown_text = capsys.readouterr().out
    assert is_safe(shown_text, hostile)
    assert shown_text.count("\n") == 1


def test_an_error_cannot_be_made_to_say_what_is_not_ours(hostile: str, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise InputError(f"found {hostile}", expected=hostile, todo=f"mend {hostile}")

    assert exit_status(fail, interrupted=str) == 2
    told = capsys.readouterr().err
    assert is_safe(told, hostile)
    assert len(re.findall(r"^  (expected|to do): ", told, re.MULTILINE)) == 2


def test_an_interrupted_command_names_its_directory_in_one_line(
    hostile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    assert exit_status(interrupt, interrupted=lambda: f"; continue {hostile}") == 130
    told = capsys.readouterr().err
    assert is_safe(told, hostile)
    assert told.count("\n") == 2


def test_a_message_of_several_lines_keeps_them_indented() -> None:
    assert visible_lines("a\nb\n  c\n      d\n") == "a\n    b\n    c\n      d\n    "


def test_checks_and_warnings_name_labels_in_one_line(hostile: str, capsys: pytest.CaptureFixture[str]) -> None:
    labels = (hostile, hostile.upper(), "fine")
    tokens = {"truncated_fraction": 0.5, "max_tokens": 8}
    for line in checks.warnings(DataSpec(), labels, dict.fromkeys(labels, 2), (1, [f"{hostile}.csv:3"]), tokens):
        say(f"  warning: {line}")
    told = capsys.readouterr().out
    assert is_safe(told, hostile)
    assert all(line.startswith("  warning: ") for line in told.splitlines())
    with pytest.raises(DataError) as refused:
        checks.refuse_empty_splits(DataSpec(), SplitSpec(), labels, {"train": [0, 0, 1], "val": [1, 1, 1]})
    assert is_safe(str(refused.value), hostile)


def test_the_report_s_tables_and_picture_take_any_label(hostile: str) -> None:
    counts = Counts.of(np.full((6, 3), 1 / 3), np.array([0, 1, 2, 0, 1, 2]))
    scores = summarise(counts, [hostile, "fine", f"not {hostile}"])
    report = Report.model_validate({"title": hostile, "test": scores})
    told = io.StringIO()
    print_report(report, told)
    assert is_safe(told.getvalue(), hostile)
    assert all(len(line) <= 100 for line in told.getvalue().split("\n"))
    assert draw_report(report).startswith(b"\x89PNG")


def test_a_line_beside_the_bar_is_safe(hostile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    board = progress.ProgressBoard()
    board.post(None, f"epoch of {hostile}")
    with progress.progress_display(board.take, say):
        pass
    shown_text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue()).replace("\r", "")
    assert "epoch of a" in shown_text
    assert is_safe(shown_text, hostile)


# --- every file that holds a name ------------------------------------------------------------------------------------


def test_files_for_people_hold_letters_and_true_values(hostile: str, tmp_path: Path) -> None:
    from textcls.batch.predictions_dir import PredictionsDir
    from textcls.output.json_files import write_json
    from textcls.tracking.events import Event
    from textcls.tracking.jsonl import JsonLines

    content = {"labels": {"好评": 3, hostile: 2}, "files": [f"{hostile}.csv"]}
    write_json(str(tmp_path / "run"), "report.json", content)
    PredictionsDir(str(tmp_path / "predictions"), "csv").finish(content)
    JsonLines(str(tmp_path / "run"), "id", resumed=False).write([Event("tested", content), Event("tested", content)])
    for path in (tmp_path / "run" / "report.json", tmp_path / "predictions" / "predictions.json"):
        written = path.read_text(encoding="utf-8")
        assert "好评" in written
        assert is_safe(written, hostile)
        assert content.items() <= json.loads(written).items()
    events = (tmp_path / "run" / "events.jsonl").read_text(encoding="utf-8")
    assert "好评" in events
    assert is_safe(events, hostile)
    lines = events.splitlines()
    assert [json.loads(line)["labels"] for line in lines] == [content["labels"]] * 2


def test_the_labels_in_a_bundle_s_model_settings_are_letters(tmp_path: Path) -> None:
    from transformers import BertConfig

    from textcls.training.export import _copy_config

    (tmp_path / "bundle").mkdir()
    config = BertConfig(id2label={0: "好评", 1: "a\u202eb"})
    config.save_pretrained(tmp_path)
    _copy_config(str(tmp_path), str(tmp_path / "bundle"))
    written = (tmp_path / "bundle" / "config.json").read_text(encoding="utf-8")
    assert '"0": "好评"' in written
    assert is_safe(written, "a\u202eb")
    assert BertConfig.from_pretrained(tmp_path / "bundle").id2label == config.id2label
