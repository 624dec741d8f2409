"""Laws 1 and 3 with `data.exclude`: its rows are in no split, the others stay where they are."""

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray

from tests.local_ray.conftest import KINDS, Kind, rewritten, small_recipe, write_reviews
from textcls.audit.run import AuditOptions, audit
from textcls.data.prepared_rows import PreparedData
from textcls.settings.recipe import Recipe
from textcls.tasks.registry import task_of
from textcls.training.inputs import find_sources, read
from textcls.training.run import dry_run

ROWS, GONE = 300, 12


def silent(line: str) -> None:
    """Takes no notice."""


def prepared(recipe: Recipe) -> PreparedData:
    """The rows of a recipe, as a training run reads them."""
    return read(find_sources(recipe, task_of(recipe.data), silent), recipe, None, silent).data


def split_of(data: PreparedData) -> dict[tuple[str, ...], str]:
    """Input -> its split."""
    tables = {name: ray.get(refs) for name, refs in data.inputs.items()}
    return {tuple(row.values()): name for name, found in tables.items() for one in found for row in one.to_pylist()}


def with_customers(path: Path) -> list[list[str]]:
    """Writes a column with a customer for every three rows, and two rows once more; returns the rows."""
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    rows = [[*row, f"C-{i // 3}"] for i, row in enumerate(rows)]
    rows += [[*rows[0][:-1], "C-900"], [*(cell.upper() for cell in rows[3][:-2]), rows[3][-2], "C-901"]]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([[*header, "customer"], *rows])
    return rows


@pytest.mark.parametrize("kind", KINDS)
def test_excluded_rows_are_in_no_split_and_the_others_stay_in_theirs(
    tiny_model_dir: Path, tmp_path: Path, kind: str
) -> None:
    of_kind: Kind = KINDS[kind]
    path = rewritten(write_reviews(tmp_path / "r.csv", ROWS), of_kind)
    rows = with_customers(path)
    before = prepared(small_recipe(tiny_model_dir, path, *of_kind.settings))
    width = len(of_kind.columns)
    gone = {tuple(row[:width]) for row in rows[:GONE]}

    texts = tmp_path / "forget.csv"
    with texts.open("w", newline="") as file:
        csv.writer(file).writerows([of_kind.columns, *gone])
    by_text = prepared(small_recipe(tiny_model_dir, path, f"data.exclude='{texts}'", *of_kind.settings))
    assert by_text.account.is_balanced
    assert by_text.account.read == before.account.read == ROWS + 2
    # Every copy goes, also the two with another customer.
    assert by_text.account.reject_reasons == {"excluded": GONE + 2}
    assert by_text.account.outcomes["duplicates"] == 0
    assert (by_text.excluded.entries, by_text.excluded.rows) == (GONE, GONE + 2)

    keys = tmp_path / "keys.txt"
    keys.write_text("".join(f"C-{i}\n" for i in range(GONE // 3)))
    settings = (f"data.exclude='{keys}'", "data.exclude_by=customer", *of_kind.settings)
    by_key = prepared(small_recipe(tiny_model_dir, path, *settings))
    assert by_key.account.reject_reasons == {"excluded": GONE}
    # What others have written as well stays, no duplicate any more.
    kept = split_of(by_key).keys() & gone
    assert len(kept) == 1  # the other copy is in capitals
    assert by_key.account.outcomes["duplicates"] == 0

    was = split_of(before)
    assert split_of(by_text).keys() == was.keys() - gone
    for after in (by_text, by_key):
        now = split_of(after)
        moved = [one for one in now.keys() & was.keys() if now[one] != was[one]]
        assert len(moved) <= GONE  # the shares of a smaller whole
    assert len({before.fingerprint, by_text.fingerprint, by_key.fingerprint}) == 3


def test_a_dry_run_and_an_audit_know_what_is_excluded(tiny_model_dir: Path, tmp_path: Path) -> None:
    path = write_reviews(tmp_path / "r.csv", 120)
    rows = with_customers(path)
    keys = tmp_path / "keys.txt"
    keys.write_text("C-1\nC-2\nC-77\n")
    recipe = small_recipe(tiny_model_dir, path, f"data.exclude='{keys}'", "data.exclude_by=customer")
    said: list[str] = []
    dry_run(recipe, say=said.append, out=str(tmp_path / "dry"))
    assert any("excluded 6 rows by 3 entries of data.exclude" in line for line in said)
    assert any(f"1 entries match no row, as if they were deleted before: {keys}:3" in line for line in said)
    account = json.loads((tmp_path / "dry" / "rows.json").read_text())
    assert account["reject_reasons"] == {"excluded": 6}
    assert account["read"] == sum(account[name] for name in ("train", "val", "test", "rejects", "duplicates"))
    rejects = pq.read_table(tmp_path / "dry" / "rejects.parquet").to_pylist()
    assert {(row["reason"], row["column"], row["value"]) for row in rejects} == {("excluded", "", "")}

    found = audit(recipe, str(tmp_path / "audit"), AuditOptions(2, quick=True, rows=200), resume=False, say=silent)
    assert found["rows"]["rejects"] == 6
    listed = (tmp_path / "audit" / "audit.csv").read_text()
    assert not any(" ".join(row[0].split()) in " ".join(listed.split()) for row in rows[4:9])
