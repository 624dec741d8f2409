"""`data.decisions`: what a person wrote into an audit.csv is read back, or refused with file and line."""

import csv
import io
from pathlib import Path

import pyarrow as pa
import pyrage
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textcls import age_keys, encryption
from textcls.audit.sheet import SheetRow, sheet
from textcls.data.checks import refuse_conflicts, refuse_unfit
from textcls.data.csv_shards import plan_shards
from textcls.data.decisions import decided, escaped, read_decisions, refuse_unmet, row_mark, rows_decided, unescaped
from textcls.data.input_files import expand
from textcls.data.messages import decision_lines
from textcls.data.row_tables import clean_rows, read_tables, summarize
from textcls.data.rows import Reason
from textcls.encryption import Keys
from textcls.errors import DataError, InputError
from textcls.settings.data import DataSpec
from textcls.settings.recipe import TextSpec
from textcls.tasks.multi_label import MULTI_LABEL
from textcls.tasks.single_label import SINGLE_LABEL
from textcls.text.text_input import TextInput

TEXTS = ("=1+1", "a fine film", "dull, but\nlong", "déjà vu 街")


def sheet_row(text: str, label: str, suggested: str, line: int = 2) -> SheetRow:
    return SheetRow(
        "reviews.csv",
        line,
        label,
        suggested,
        (0.1, 0.9, -0.8, 2.3, 0.4),
        1,
        {},
        TextInput(text),
        row_mark(TextInput(text), label),
    )


def filled(
    path: Path, cells: list[str], labels: tuple[str, str] = ("bad", "good"), *, delimiter: str = ",", sig: bool = False
) -> Path:
    """A sheet with these decisions, saved as a spreadsheet might."""
    content = sheet([sheet_row(text, *labels, line=i) for i, text in enumerate(TEXTS[: len(cells)], 2)])
    header, *rows = csv.reader(io.StringIO(content.decode(), newline=""))
    place = header.index("decision")
    for row, cell in zip(rows, cells, strict=True):
        row[place] = cell
    with path.open("w", encoding="utf-8-sig" if sig else "utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return path


def of(path: Path, task=SINGLE_LABEL, **data):
    return read_decisions(DataSpec(decisions=(str(path),), **data), task)


@pytest.mark.parametrize(("delimiter", "sig"), [(",", False), (";", True), ("\t", False)])
def test_decisions_survive_a_spreadsheet(tmp_path: Path, delimiter: str, sig: bool) -> None:
    found = of(filled(tmp_path / "audit.csv", ["good", "Keep", " DROP ", ""], delimiter=delimiter, sig=sig))
    assert [decided(found, TextInput(text), "bad")[0] for text in TEXTS] == ["good", "bad", None, "bad"]
    assert [len(decided(found, TextInput(text), "bad")[1]) for text in TEXTS] == [1, 1, 1, 0]


def test_a_decision_is_about_a_text_with_a_label_wherever_the_row_stands(tmp_path: Path) -> None:
    found = of(filled(tmp_path / "audit.csv", ["good"]))
    assert decided(found, TextInput(TEXTS[0]), "good") == ("good", [])  # the same text, otherwise labelled
    assert decided(found, TextInput(TEXTS[0] + " "), "bad") == ("bad", [])  # another text


def test_later_files_decide_about_the_labels_that_earlier_ones_gave(tmp_path: Path) -> None:
    first = filled(tmp_path / "first.csv", ["good"])
    second = filled(tmp_path / "second.csv", ["drop"], ("good", "bad"))
    data = DataSpec(decisions=(str(first), str(second)))
    label, met = decided(read_decisions(data, SINGLE_LABEL), TextInput(TEXTS[0]), "bad")
    assert label is None
    assert len(met) == 2


def test_several_labels_are_written_as_in_the_cells_or_as_json(tmp_path: Path) -> None:
    path = filled(tmp_path / "audit.csv", ["b; a", '["c"]', "[]", "drop"], ('["a"]', '["b"]'))
    found = of(path, MULTI_LABEL, labels_in="cell", label_delimiter=";")
    assert [decided(found, TextInput(text), '["a"]')[0] for text in TEXTS] == ['["a","b"]', '["c"]', "[]", None]
    in_columns = of(path, MULTI_LABEL, label_columns=("a", "b"), label_delimiter=";")
    assert decided(in_columns, TextInput(TEXTS[0]), '["a"]')[0] == '["a","b"]'


def test_a_label_with_the_name_keep_is_written_in_brackets(tmp_path: Path) -> None:
    found = of(filled(tmp_path / "audit.csv", ['["keep"]', '["drop"]']))
    assert [decided(found, TextInput(text), "bad")[0] for text in TEXTS[:2]] == ["keep", "drop"]


def test_a_label_that_is_not_among_those_asked_for_is_refused_with_file_and_line(tmp_path: Path) -> None:
    path = filled(tmp_path / "audit.csv", ["good", "goood", "keep", '["bad", "good"]'])
    with pytest.raises(DataError) as refused:
        of(path, labels=("bad", "good"))
    assert f"{path}:3: 'goood'" in str(refused.value)
    # The third text has a line break, which the sheet shows as two characters: a row is one line.
    assert f"{path}:5: " in str(refused.value)
    filled(tmp_path / "audit.csv", ["good", "good", "keep", '["bad"]'])
    assert len(of(path, labels=("bad", "good"))[0].by_row) == 4


def test_a_label_that_no_row_has_is_refused_once_the_rows_are_known(tmp_path: Path) -> None:
    path = filled(tmp_path / "audit.csv", ["goood", "so so"])
    found, data = of(path), DataSpec(decisions=(str(path),))
    met = {name: 1 for text in TEXTS[:2] for name in decided(found, TextInput(text), "bad")[1]}
    counts = {"bad": 5, "good": 9, "so so": 4, "goood": 1}  # after the decisions
    with pytest.raises(DataError, match="goood") as refused:
        refuse_unmet(found, met, counts, data, SINGLE_LABEL)
    assert "so so'" not in refused.value.found
    assert "bad, good, so so" in refused.value.expected
    corrected = of(filled(path, ["good", "so so"]))
    refuse_unmet(corrected, met, counts, data, SINGLE_LABEL)


def test_decisions_about_rows_that_are_gone_are_refused_until_their_lines_are(tmp_path: Path) -> None:
    path = filled(tmp_path / "audit.csv", ["keep", "good"])
    found, data = of(path), DataSpec(decisions=(str(path),))
    met = dict.fromkeys(decided(found, TextInput(TEXTS[0]), "bad")[1], 1)
    with pytest.raises(DataError, match=r"1 decision is about rows") as refused:
        refuse_unmet(found, met, {"bad": 3, "good": 3}, data, SINGLE_LABEL)
    assert f"{path}:3, about reviews.csv:3" in refused.value.found
    filled(path, ["keep"])
    refuse_unmet(of(path), met, {"bad": 3, "good": 3}, data, SINGLE_LABEL)


def test_two_decisions_about_one_text_are_refused_unless_they_agree(tmp_path: Path) -> None:
    rows = [sheet_row("a film", "bad", "good", line) for line in (2, 3)]
    path, text = tmp_path / "audit.csv", sheet(rows).decode()
    path.write_text(text.replace(",good,,", ",good,drop,", 1).replace(",good,,", ",good,good,", 1), newline="")
    with pytest.raises(DataError, match="'good', but 'drop' about the same text in line 2"):
        of(path)
    path.write_text(text.replace(",good,,", ",good,drop,"), newline="")
    assert len(of(path)[0].by_row) == 1


def test_what_is_no_audit_is_refused_until_an_audit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    with pytest.raises(DataError, match="no such file"):
        of(path)
    path.write_text("text,label\na,b\n")
    with pytest.raises(DataError, match=r"audit.csv: file, line, suggested, decision, row\n"):
        of(path)
    header, *rest = filled(path, ["keep"], delimiter=";").read_text().splitlines()
    path.write_text("\n".join([header.replace("row", "mark"), *rest]))
    with pytest.raises(DataError, match=r"audit.csv: row\n"):
        of(path)
    path.write_text('text,"label\n' + "a,b\n" * 50_000)
    with pytest.raises(DataError, match="is no CSV file"):
        of(path)
    path.write_bytes(sheet([sheet_row("film", "schön", "good")]).decode().encode("cp1252"))
    with pytest.raises(DataError, match="not UTF-8"):
        of(path)
    assert of(filled(path, ["keep"]))


@given(st.text(max_size=6))
def test_a_cell_is_never_a_formula_and_comes_back_as_it_was(cell: str) -> None:
    assert not escaped(cell).startswith(("=", "+", "-", "@", "\t", "\r"))
    assert unescaped(escaped(cell)) == cell


def test_a_text_that_is_a_formula_is_text_in_the_sheet() -> None:
    evil = '=HYPERLINK("http://evil.example","click")'
    row = SheetRow(
        "-x.csv", 1, "@label", "+other", (0.1, 0.9, -0.8, 2.3, -1.5), 1, {"similar": "=1"}, TextInput(evil), "row-0"
    )
    header, cells = csv.reader(io.StringIO(sheet([row]).decode(), newline=""))
    numbers = ["margin", "value"]  # a negative number is a number
    assert [name for name, cell in zip(header, cells, strict=True) if cell[:1] in "=+-@" and cell] == numbers
    assert dict(zip(header, cells, strict=True))["text"] == "'" + evil
    assert sheet([row], encoding="utf-8-sig").startswith(b"\xef\xbb\xbf")


def test_the_mark_of_a_row_is_no_number_and_tells_pairs_and_labels_apart() -> None:
    marks = {row_mark(TextInput("a", "b"), "x"), row_mark(TextInput("a b"), "x"), row_mark(TextInput("a", "b"), "y")}
    assert len(marks) == 3
    assert all(mark.startswith("row-") for mark in marks)


# --- what becomes of the rows -----------------------------------------------------------------------------------------


def test_rows_are_relabelled_dropped_and_counted_wherever_they_stand(tmp_path: Path) -> None:
    decisions = of(filled(tmp_path / "audit.csv", ["good", "drop"]))
    rows = [TEXTS[1], TEXTS[0], "another film", TEXTS[0]]
    path = tmp_path / "moved.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["text", "label"], *([text, "bad"] for text in rows)])
    data = DataSpec(csv=(str(path),))
    layouts, shards = plan_shards(expand(data.csv), data, run=lambda f, jobs: [f(*job) for job in jobs])
    tables = read_tables(shards[0], layouts[0], data, TextSpec(), SINGLE_LABEL, decisions=decisions)
    table = pa.concat_tables(tables)
    assert clean_rows(table)["label"].to_pylist() == ["good", "bad", "good"]
    found = summarize(table, SINGLE_LABEL)
    assert found.reasons == {Reason.DROPPED_BY_DECISION: 1}
    assert found.read == 4
    assert sorted(found.decided.values()) == [1, 2]
    refuse_unmet(decisions, found.decided, {"good": 3, "bad": 2}, data, SINGLE_LABEL)
    rows_by_decision = rows_decided(decisions, found.decided)
    assert rows_by_decision == {"keep": 0, "drop": 1, "relabel": 2}
    (line,) = decision_lines(rows_by_decision)
    assert line == "  decisions: kept 0 rows, dropped 1, gave another label to 2"
    assert list(decision_lines(rows_decided((), found.decided))) == []


def test_dropped_rows_do_not_stop_a_run_unless_none_is_left() -> None:
    data, dropped = DataSpec(max_reject_fraction=0.01), str(Reason.DROPPED_BY_DECISION)
    arguments = {"read": 100, "outside_where": 0, "examples": [], "labels": ("bad", "good")}
    refuse_unfit(data, reasons={dropped: 40}, **arguments)
    refuse_conflicts(data, 100, {dropped: 40, str(Reason.CONFLICTING_LABELS): 1})
    with pytest.raises(DataError, match="2 of 100 rows"):
        refuse_unfit(data, reasons={dropped: 40, str(Reason.MISSING_TEXT): 2}, **arguments)
    with pytest.raises(DataError, match="every one of the 100 rows"):
        refuse_unfit(data, reasons={dropped: 100}, **arguments)


def test_encrypted_decisions_are_read_with_an_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = pyrage.x25519.Identity.generate()
    plain = filled(tmp_path / "audit.csv", ["good", "drop"])
    path = tmp_path / "audit.csv.age"
    encryption.write_bytes(str(path), plain.read_bytes(), [str(secret.to_public())])
    (tmp_path / "key.txt").write_text(str(secret))
    monkeypatch.delenv(age_keys.IDENTITY, raising=False)
    monkeypatch.delenv(age_keys.IDENTITY_FILE, raising=False)
    data = DataSpec(decisions=(str(path),))
    with pytest.raises(InputError, match="there is no identity to open it"):
        read_decisions(data, SINGLE_LABEL)
    (found,) = read_decisions(data, SINGLE_LABEL, Keys(identity_file=str(tmp_path / "key.txt")))
    assert found.by_row == of(plain)[0].by_row
    monkeypatch.setenv(age_keys.IDENTITY, str(secret))
    assert of(path)[0].by_row == found.by_row
    assert found.uri == str(path)
