"""Identifiers in the cells of a CSV are masked, and nothing else in it changes; keyed, equal values stay equal."""

import random
from pathlib import Path
from typing import Any

import pytest

from tests.identifiers import EVERY, identifiers
from textcls.commands.mask import main, parser
from textcls.data.csv_shards import plan_shards
from textcls.data.input_files import expand
from textcls.errors import DataError, InputError
from textcls.masking.masked_rows import MaskedCounts, RejectedRow, RowMasker
from textcls.masking.pseudonyms import VARIABLE, PseudonymKey, canonical, read_key
from textcls.masking.raw_records import read_raw
from textcls.masking.run import mask
from textcls.masking.settings import MaskedDataSpec, mask_settings
from textcls.settings.recipe import TextSpec
from textcls.text.masks import masker_of

KEY = PseudonymKey(bytes(range(32)))
HEX = bytes(range(32)).hex()


def masked(
    path: Path, *columns: str, text: TextSpec = EVERY, key: PseudonymKey | None = None, **data: Any
) -> tuple[str, list[RejectedRow], MaskedCounts]:
    """What is written for a file."""
    spec = MaskedDataSpec(masked=columns, **data)
    (layout,), shards = plan_shards(expand([str(path)]), spec)
    mask = RowMasker(masker_of(text), layout, spec, columns, key)
    found = [mask(record) for shard in shards for record in read_raw(shard, layout, spec)]
    rejects = [one for one in found if isinstance(one, RejectedRow)]
    return "".join(one for one in found if isinstance(one, str)), rejects, mask.counts


def csv_of(path: Path, content: str) -> Path:
    path.write_text(content, newline="", encoding="utf-8")
    return path


def test_every_kind_is_masked_and_all_other_bytes_stay(tmp_path: Path) -> None:
    planted = identifiers(48)
    lines, wanted = ['id;"text";note'], ['id;"text";note']
    for i, (kind, value) in enumerate(planted):
        lines.append(f'{i};"says ""{value}"", so\nand so";  b"x {value}')
        wanted.append(lines[-1].replace(value, f"[{kind.upper()}]"))
    path = csv_of(tmp_path / "a.csv", "\r\n".join(lines) + "\r\n\r\n")
    found, rejects, counts = masked(path, shard_bytes=300)
    assert found == "\r\n".join(wanted) + "\r\n\r\n"
    assert rejects == []
    assert (counts.read, counts.written, counts.masked) == (48, 48, 48)
    assert counts.hits[("text", "email")] == counts.hits[("note", "email")] == 4


def test_only_the_columns_that_are_named_are_masked(tmp_path: Path) -> None:
    path = csv_of(tmp_path / "a.csv", "a,b\nx@example.com,y@example.com\n")
    assert masked(path, "b")[0] == "a,b\nx@example.com,[EMAIL]\n"
    assert masked(path, "1", header=False)[0] == "a,b\nx@example.com,[EMAIL]\n"


def test_rows_that_cannot_be_parsed_are_rejects_that_quote_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(
        b"a,b\nx@example.com,1,2\ny\xff@example.com,2\nz@example.com,3\n" + b"l@example.com %s,4\n" % (b"x" * 99)
    )
    found, rejects, counts = masked(path, max_cell_chars=50)
    assert found == "a,b\n[EMAIL],3\n"
    assert [(one.line, one.column, one.reason) for one in rejects] == [
        (2, "", "ragged_row"),
        (3, "a", "undecodable"),
        (5, "", "cell_too_long"),
    ]
    assert not any("@" in one.value for one in rejects)
    assert counts.read == counts.written + counts.reasons.total() == 4


def test_a_first_row_in_place_of_a_header_is_refused_and_can_be_read_as_a_row(tmp_path: Path) -> None:
    path = csv_of(tmp_path / "a.csv", "x@example.com,1\ny@example.com,2\n")
    with pytest.raises(DataError, match="the header holds 1 value to mask") as refused:
        masked(path)
    assert "example.com" not in str(refused.value)
    assert "--set data.header=false" in refused.value.todo
    assert masked(path, header=False)[0] == "[EMAIL],1\n[EMAIL],2\n"


def test_a_title_above_the_header_is_masked(tmp_path: Path) -> None:
    path = csv_of(tmp_path / "a.csv", "sep=;\nReport of x@example.com\n\na;b\ny@example.com;1\n")
    assert masked(path, "a")[0] == "sep=;\nReport of [EMAIL]\n\na;b\n[EMAIL];1\n"


def test_a_file_that_cannot_be_decoded_in_one_encoding_keeps_its_bytes_in_another(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("a,b\ncafé x@example.com,é\n".encode("cp1252"))
    assert masked(path, encoding="cp1252")[0].encode("cp1252") == "a,b\ncafé [EMAIL],é\n".encode("cp1252")


# --- pseudonyms -------------------------------------------------------------------------------------------------------


def test_equal_values_have_one_pseudonym_in_every_column_and_file_and_others_another(tmp_path: Path) -> None:
    one = csv_of(tmp_path / "a.csv", 'a,b\nX@example.com,"from x@EXAMPLE.com, y@example.com"\n')
    other = csv_of(tmp_path / "b.csv", "c\nx@example.com\n")
    text = TextSpec(mask=("email",))
    (first, _, _), (second, _, _) = masked(one, text=text, key=KEY), masked(other, text=text, key=KEY)
    mark, again, different = [part[:23] for part in first.split("[")[1:]]
    assert mark == again == second.partition("[")[2][:23]
    assert mark != different
    assert len(f"[{mark}") == len("[EMAIL:0123456789abcdef]")
    (with_another_key, _, _) = masked(one, text=text, key=PseudonymKey(bytes(range(1, 33))))
    assert mark not in with_another_key


def test_a_masked_file_is_masked_again_without_a_change(tmp_path: Path) -> None:
    chance = random.Random(0)
    rows = [f'"{value} and {chance.random()}",x' for _, value in identifiers(48)]
    path = csv_of(tmp_path / "a.csv", "a,b\n" + "\n".join(rows) + "\n")
    for key in (None, KEY):
        once = csv_of(tmp_path / "b.csv", masked(path, key=key)[0])
        again, _, counts = masked(once, key=key)
        assert again == once.read_text(encoding="utf-8")
        assert not counts.hits


@pytest.mark.parametrize(
    ("kind", "spellings"),
    [
        ("email", ["A.B@Example.com", "a.b@example.com", "ａ.b＠example.com"]),
        ("phone", ["+1 (555) 555-0100", "0015555550100", "+1 555 555 0100"]),
        ("phone", ["+86 138 0000 1234", "13800001234"]),
        ("cn_mobile", ["+86-13800001234", "１３８０００0１２３４", "138 0000 1234"]),
        ("card", ["4111 1111 1111 1111", "4111111111111111"]),
        ("iban", ["DE89 3704 0044 0532 0130 00", "de89370400440532013000"]),
        ("cn_id", ["11010519491231002x", "11010519491231002X"]),
        ("cn_plate", ["京A·12345", "京A12345"]),
        ("ip", ["2001:db8::1", "2001:DB8:0:0:0:0:0:1"]),
        ("url", ["HTTPS://Example.com/A", "https://example.com/A"]),
    ],
)
def test_spellings_of_one_value_are_one(kind: str, spellings: list[str]) -> None:
    assert len({KEY.pseudonym(kind, one) for one in spellings}) == 1


def test_values_that_differ_stay_apart() -> None:
    assert canonical("url", "https://example.com/a") != canonical("url", "https://example.com/A")
    assert KEY.pseudonym("phone", "5550100") != KEY.pseudonym("number", "5550100")


# --- the key ----------------------------------------------------------------------------------------------------------


def test_a_key_comes_from_the_environment_or_a_file_and_is_in_no_representation(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(HEX + "\n")
    assert read_key({VARIABLE: HEX}, None) == read_key({}, str(path)) == KEY
    for shown in (repr(KEY), str(KEY), KEY.check):
        assert HEX[:8] not in shown
        assert repr(KEY.secret) not in shown


@pytest.mark.parametrize("text", ["", HEX[:30], "0" * 64, "correct horse battery staple", "é" * 20])
def test_a_key_that_is_missing_short_or_no_secret_is_refused_without_being_told(text: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(text, encoding="utf-8")
    for environment, key_file in (({VARIABLE: text}, None), ({}, str(path))):
        with pytest.raises(InputError) as refused:
            read_key(environment, key_file)
        assert "openssl rand -hex 32" in refused.value.todo
        assert refused.value.exit_status == 2
        assert not text or text not in str(refused.value)


def test_a_key_file_comes_with_what_it_is_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "key"
    path.write_text("00")
    command = ["--csv", "none.csv", "--out", str(tmp_path / "out"), "--mask", "email", "--key-file", str(path)]
    assert main(command) == 2
    assert "add --keyed" in capsys.readouterr().err
    assert main([*command, "--keyed"]) == 2
    assert "has 8 bits" in capsys.readouterr().err
    path.write_text(HEX)
    assert main([*command, "--keyed"]) == 2
    assert "none.csv: no such file" in capsys.readouterr().err


def test_a_column_with_a_comma_in_its_name_is_named_in_quotes() -> None:
    arguments = ["--csv", "a.csv", "--out", "out", "--columns"]
    assert parser().parse_args([*arguments, '"note, x", text']).columns == ["note, x", "text"]
    assert parser().parse_args([*arguments, "a,b c"]).columns == ["a", "b c"]
    for wrong in ("", "a,,b", "a\nb"):
        with pytest.raises(SystemExit):
            parser().parse_args([*arguments, wrong])


def test_a_delimiter_that_is_in_a_placeholder_is_refused_without_quotes(tmp_path: Path) -> None:
    path = csv_of(tmp_path / "a.csv", "a:b\nx@example.com:1\n")
    spec = mask_settings([str(path)], ["email"], [], ["data.delimiter=':'", "data.quoting=none"])
    with pytest.raises(InputError, match="a placeholder would be two cells"):
        mask(spec, str(tmp_path / "out"), say=lambda line: None)
    assert masked(path, key=KEY, delimiter=":")[0].startswith('a:b\n"[EMAIL:')


def test_a_mask_job_without_anything_to_mask_or_with_other_settings_is_refused() -> None:
    with pytest.raises(InputError, match="nothing is to be masked") as refused:
        mask_settings(["a.csv"], [], [], [])
    assert "--mask email,phone,card" in refused.value.todo
    assert mask_settings(["a.csv"], ["email", "phone", "card"], [], []).text.mask == ("email", "phone", "card")
    assert mask_settings(["a.csv"], [], [], ["text.mask_patterns={id: 'E\\d{6}'}"]).text.mask_patterns
    for override in ("data.where={a: b}", "text.lowercase=false", "train.epochs=1", "data.text_columns=a"):
        with pytest.raises(InputError, match="has no meaning here"):
            mask_settings(["a.csv"], ["email"], [], [override])
