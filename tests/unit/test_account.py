"""The account of rows is whole, balanced and written as it is read. `pytest tests/unit/test_account.py`"""

import dataclasses
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pyrage

from textcls import encryption
from textcls.encryption import Keys
from textcls.output.account import (
    FILES,
    REJECT_SCHEMA,
    Account,
    unused_patterns,
    write_account,
    write_conflicts,
    write_rejects,
)

TRAINED = Account(
    10, {"train": 4, "val": 1, "test": 2, "rejects": 2, "duplicates": 1}, outside_where=5, reject_reasons={"ragged": 2}
)


def test_an_account_is_balanced_if_every_row_has_one_outcome() -> None:
    assert TRAINED.is_balanced
    assert not Account(11, TRAINED.outcomes, 5, {}).is_balanced
    assert Account(0, {"evaluated": 0, "rejects": 0}, 5, {}).is_balanced


def test_an_account_reads_as_an_equation() -> None:
    assert str(TRAINED) == "10 = train 4 + val 1 + test 2 + rejects 2 + duplicates 1"
    assert str(Account(4_500, {"evaluated": 4_000, "rejects": 500}, 0, {})) == "4,500 = evaluated 4,000 + rejects 500"


def test_rows_json_holds_every_outcome_the_reasons_and_the_details(tmp_path: Path) -> None:
    write_account(str(tmp_path), TRAINED, labels={"good": {"train": 4}})
    assert json.loads((tmp_path / "rows.json").read_text()) == {
        "read": 10,
        "train": 4,
        "val": 1,
        "test": 2,
        "rejects": 2,
        "duplicates": 1,
        "outside_where": 5,
        "reject_reasons": {"ragged": 2},
        "labels": {"good": {"train": 4}},
    }


def test_an_account_names_what_was_masked_if_anything_is(tmp_path: Path) -> None:
    placeholders = {"train": {"email": 1300, "card": 0}, "val": {"email": 0, "card": 0}}
    account = dataclasses.replace(TRAINED, masked_rows={"email": 1204, "card": 0}, placeholders=placeholders)
    assert account.as_json()["masked"] == {"rows": {"email": 1204, "card": 0}, "placeholders": placeholders}
    assert account.masked_line == "masked: email in 1,204 rows; placeholders: train 1,300, val 0"
    assert dataclasses.replace(account, placeholders={}).as_json()["masked"] == {"rows": {"email": 1204, "card": 0}}
    none = dataclasses.replace(TRAINED, masked_rows={"email": 0, "card": 0})
    assert none.masked_line == "masked: no row holds any email, card"
    assert TRAINED.masked_line == ""
    own = dataclasses.replace(TRAINED, masked_rows={"badge": 0, "email": 0, "staff": 2})
    assert unused_patterns(own) == ["no row holds any badge: check the pattern text.mask_patterns.badge"]


def test_rejects_are_written_table_by_table_even_if_there_is_none(tmp_path: Path) -> None:
    write_rejects(str(tmp_path), [])
    assert pq.read_table(tmp_path / "rejects.parquet").schema == REJECT_SCHEMA
    one = pa.table([["a.csv"], pa.array([3], pa.int64()), ["text"], ["ragged"], ["x"]], schema=REJECT_SCHEMA)
    write_rejects(str(tmp_path), [one, one])
    assert pq.read_table(tmp_path / "rejects.parquet").num_rows == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["rejects.parquet"]


def test_rejects_in_their_other_form_are_replaced(tmp_path: Path) -> None:
    secret = pyrage.x25519.Identity.generate()
    keys = Keys((str(secret.to_public()),))
    write_rejects(str(tmp_path), [])
    write_conflicts(str(tmp_path), [])
    plain = (tmp_path / "rejects.parquet").read_bytes()
    write_rejects(str(tmp_path), [], keys)
    assert [file.name for file in tmp_path.iterdir()] == ["rejects.parquet.age"]
    assert encryption.read_bytes(str(tmp_path / "rejects.parquet.age"), [secret]) == plain
    write_conflicts(str(tmp_path), [], keys)
    write_rejects(str(tmp_path), [])
    assert [file.name for file in tmp_path.iterdir()] == ["rejects.parquet"]
    assert {"rejects.parquet.age", "conflicts.parquet.age"} < FILES
