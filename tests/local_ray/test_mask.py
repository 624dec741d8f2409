"""Masked files hold every row once and in order, whatever works on them and whatever breaks; the key is nowhere."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from ray._private.worker import global_worker

from tests.identifiers import identifiers, left_in
from textcls.data.csv_shards import plan_shards
from textcls.data.input_files import expand
from textcls.errors import DataError, RunDirError
from textcls.masking import run as mask_run
from textcls.masking.masked_dir import MaskedDir
from textcls.masking.pseudonyms import PseudonymKey
from textcls.masking.run import mask
from textcls.masking.settings import mask_settings

CASES = Path(__file__).parents[1] / "csv"
KEY = PseudonymKey(bytes.fromhex("00112233445566778899aabbccddeeff" * 2))
ALL = ["email", "phone", "url", "ip", "card", "iban", "cn_id", "cn_mobile", "cn_plate", "passport", "number"]


def planted(path: Path, rows: int, seed: int = 0) -> list[str]:
    """Writes a file in which every third row holds an identifier, some in quotes with line breaks; the identifiers."""
    values = [value for kind, value in identifiers(rows, seed) if kind != "employee_id"]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\r\n")
        table.writerow(["id", "text", "note"])
        for i in range(rows):
            value = values[i // 3] if i % 3 == 0 else "nobody"
            table.writerow([f"r{i}", f'a film,\nfrom "{value}" too', value])
    return values[: -(-rows // 3)]


def masked(paths: list[Path], out: Path, *overrides: str, **options: Any) -> dict[str, Any]:
    spec = mask_settings([*map(str, paths)], ALL, [], [*overrides])
    return mask(spec, str(out), say=lambda line: None, **options)


def rows_in(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def files_of(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_every_row_is_written_once_in_order_whatever_the_shards(tmp_path: Path) -> None:
    one, other = tmp_path / "a.csv", tmp_path / "deep" / "a.csv"
    other.parent.mkdir()
    values = [*planted(one, 400), *planted(other, 100, seed=1)]
    manifests = []
    for name, shard_bytes in (("whole", 2**25), ("cut", 1000)):
        out = tmp_path / name
        manifests.append(masked([one, other], out, f"data.shard_bytes={shard_bytes}"))
        assert list(left_in(out, values)) == []
        assert sorted(path.name for path in out.iterdir()) == ["csv", "masked.json", "rejects.parquet"]
    for name, source in (("a.csv", one), ("a-2.csv", other)):
        assert (tmp_path / "whole" / "csv" / name).read_bytes() == (tmp_path / "cut" / "csv" / name).read_bytes()
        found, before = rows_in(tmp_path / "cut" / "csv" / name), rows_in(source)
        assert [row[0] for row in found] == [row[0] for row in before]
        assert [row for i, row in enumerate(found) if i % 3 != 1] == [row for i, row in enumerate(before) if i % 3 != 1]
    assert manifests[0] == manifests[1]
    assert manifests[0]["read"] == manifests[0]["written"] == 500
    assert manifests[0]["rows_masked"] == len(values)
    assert sum(manifests[0]["kinds"].values()) == 2 * len(values)


def test_a_file_without_identifiers_keeps_every_byte(tmp_path: Path) -> None:
    paths = [path for path in sorted(CASES.glob("*.csv")) if path.name not in ("utf_16.csv", "unclosed_quote.csv")]
    masked(paths, tmp_path / "out", "data.header=false", "data.encoding=latin-1", "data.max_reject_fraction=1")
    rejected = {Path(row["file"]).name for row in pq.read_table(tmp_path / "out" / "rejects.parquet").to_pylist()}
    kept = [path for path in paths if path.name not in rejected]
    assert len(kept) > 5
    for path in kept:
        assert (tmp_path / "out" / "csv" / path.name).read_bytes() == path.read_bytes()


def test_rows_that_cannot_be_parsed_are_counted_and_too_many_of_them_end_the_job(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + "x@example.com,1\n" * 98 + "y@example.com,1,2\n" * 2)
    with pytest.raises(DataError, match="2 of 100 rows") as refused:
        masked([path], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert "--set data.max_reject_fraction=0.02" in refused.value.todo
    manifest = masked([path], tmp_path / "out", "data.max_reject_fraction=0.02")
    assert manifest["read"] == manifest["written"] + manifest["rejects"] == 100
    rejects = pq.read_table(tmp_path / "out" / "rejects.parquet").to_pylist()
    assert [(row["line"], row["reason"], row["value"]) for row in rejects] == [
        (line, "ragged_row", "3 fields, expected 2") for line in (100, 101)
    ]


def test_an_interrupted_job_continues_with_its_parts_and_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tmp_path / "a.csv", tmp_path / "out"
    planted(path, 300)
    masked([path], tmp_path / "whole", "data.shard_bytes=2000", key=KEY)

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(mask_run, "_refuse_rejects", interrupted)
    with pytest.raises(KeyboardInterrupt):
        masked([path], out, "data.shard_bytes=2000", key=KEY)
    monkeypatch.undo()
    (out / "progress" / "part-00001.json").unlink()  # as if this part had not been finished
    with pytest.raises(RunDirError, match="key"):
        masked([path], out, "data.shard_bytes=2000", key=PseudonymKey(bytes(range(16))))
    masked([path], out, "data.shard_bytes=2000", key=KEY)
    assert files_of(out) == files_of(tmp_path / "whole")
    with pytest.raises(RunDirError, match="finished"):
        masked([path], out, key=KEY)


def test_the_key_is_in_no_file_and_no_log_and_pseudonyms_join_files(tmp_path: Path) -> None:
    one, other = tmp_path / "a.csv", tmp_path / "b.csv"
    one.write_text("id,mail\n1,a@example.com\n2,b@example.com\n")
    other.write_text("mail,bought\nB@example.com,5\na@example.com,7\n")
    masked([one], tmp_path / "one", key=KEY)
    masked([other], tmp_path / "other", key=KEY)
    by_mail = {row["mail"]: row["id"] for row in csv.DictReader((tmp_path / "one" / "csv" / "a.csv").open())}
    bought = csv.DictReader((tmp_path / "other" / "csv" / "b.csv").open())
    assert {by_mail[row["mail"]]: row["bought"] for row in bought} == {"2": "5", "1": "7"}
    session = Path(global_worker.node.get_session_dir_path())
    assert (session / "logs").is_dir()
    secrets = [KEY.secret, KEY.secret.hex().encode(), repr(KEY.secret).encode()]
    for folder in (tmp_path, session):
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                assert not any(secret in path.read_bytes() for secret in secrets), path
    assert json.loads((tmp_path / "one" / "masked.json").read_text())["keyed"] is True


def test_a_task_that_is_repeated_writes_the_same_part(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    planted(path, 60)
    spec = mask_settings([str(path)], ALL, [], ["data.shard_bytes=500"])
    layouts, shards = plan_shards(expand([str(path)]), spec.data)
    work = mask_run._MaskShard(tuple(shards), tuple(layouts), spec, MaskedDir.claim(str(tmp_path / "out"), {}), KEY)
    index = {"index": np.array([1])}
    assert work(index) == index
    first = files_of(tmp_path / "out")
    work(index)
    assert files_of(tmp_path / "out") == first
    assert {"progress/part-00001.csv", "progress/part-00001.json"} <= set(first)


def test_what_a_job_says_of_a_file_is_masked(tmp_path: Path) -> None:
    path, said = tmp_path / "a.csv", list[str]()
    path.write_text("name,number\n" + "a,1\n" * 20 + "Total,4111111111111111\n")
    spec = mask_settings([str(path)], ["card"], ["name", "number"], [])
    mask(spec, str(tmp_path / "out"), say=said.append)
    (note,) = [line for line in said if "looks like a total" in line]
    assert "'Total,[CARD]'" in note
    assert str(path) in note
