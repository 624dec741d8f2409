"""What a message advises, works: each is provoked, followed to the letter, and the next attempt gets further.

Only what no other test follows; tests/house/test_advice_is_followed.py says which test follows what.
"""

import argparse
import hashlib
import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.reading import options, read
from textcls import storage
from textcls.batch import actor_pool as scoring_workers
from textcls.batch.predictions_dir import MANIFEST as PREDICTIONS
from textcls.batch.predictions_dir import PredictionsDir
from textcls.batch.settings import UnlabelledSpec
from textcls.bundle import MANIFEST, load_bundle, write_bundle
from textcls.commands import predict as predict_command
from textcls.commands import serve as serve_command
from textcls.commands import train as train_command
from textcls.data import checks
from textcls.data.csv_head import read_layout
from textcls.data.csv_layout import layout_notes
from textcls.data.csv_scan import scan_range
from textcls.data.input_files import InputFile, expand
from textcls.data.label_columns import several_labels_warnings, together_warnings, with_label_columns
from textcls.data.messages import label_lines
from textcls.data.summary import RowSummary
from textcls.data.token_limits import suggestion
from textcls.directories import put_directory
from textcls.errors import (
    BundleError,
    DataError,
    InputError,
    ModelError,
    RecipeError,
    RunDirError,
    StorageError,
    TextclsError,
)
from textcls.modeling.pretrained import find_model, read_config
from textcls.output.claim import claim
from textcls.settings.data import DataSpec
from textcls.settings.recipe import ModelSpec, Recipe, SplitSpec, TextSpec
from textcls.settings.recipe_file import parse_recipe, recipe_text
from textcls.settings.serve import ServeSpec
from textcls.settings.yaml_text import set_option
from textcls.tasks.registry import task_of
from textcls.tasks.shares import rounded_shares
from textcls.tasks.single_label import SINGLE_LABEL
from textcls.text.tokenizer import InputTokenizer
from textcls.text.tokenizer_files import prepare_tokenizer
from textcls.training import scaling as training_workers
from textcls.training.checkpoint import MANIFEST as CHECKPOINT
from textcls.training.run_dir import RunDir


def todo_of(attempt: Any, kind: type[TextclsError] = InputError) -> str:
    """What the message of a refused attempt says is to be done."""
    with pytest.raises(kind) as caught:
        attempt()
    assert caught.value.todo
    return caught.value.todo


# --- bundles ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle that may be damaged."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "out" / "bundle"))


def test_a_run_s_directory_in_place_of_its_bundle_comes_with_the_bundle(bundle: Path) -> None:
    option, uri = shlex.split(todo_of(lambda: load_bundle(str(bundle.parent))))
    assert option == "--bundle"
    assert load_bundle(uri).uri == str(bundle)
    assert "check the path" in todo_of(lambda: load_bundle(str(bundle.parent.parent)))


@pytest.mark.parametrize(
    "damage",
    [
        lambda bundle: (bundle / "config.json").unlink(),
        lambda bundle: (bundle / "config.json").write_text("{}"),
        lambda bundle: (bundle / MANIFEST).write_text("{"),
        lambda bundle: (bundle / MANIFEST).write_bytes((bundle / MANIFEST).read_bytes() + b" "),
    ],
)
def test_a_damaged_bundle_can_be_copied_again(bundle: Path, tiny_bundle: Path, damage: Any) -> None:
    damage(bundle)
    assert "copy" in todo_of(lambda: load_bundle(str(bundle)), BundleError)
    shutil.copytree(tiny_bundle, bundle, dirs_exist_ok=True)
    load_bundle(str(bundle))


def test_a_strange_file_in_a_bundle_can_be_moved_away(bundle: Path, tmp_path: Path) -> None:
    (bundle / "notes.txt").write_text("mine")
    assert todo_of(lambda: load_bundle(str(bundle)), BundleError) == "move it away"
    (bundle / "notes.txt").rename(tmp_path / "notes.txt")
    load_bundle(str(bundle))


def test_a_file_that_must_not_be_in_a_bundle_can_be_moved_away(tiny_bundle: Path, tmp_path: Path) -> None:
    manifest = load_bundle(str(tiny_bundle)).manifest
    source = Path(shutil.copytree(tiny_bundle, tmp_path / "files"))
    (source / "pytorch_model.bin").write_bytes(b"")

    def attempt() -> None:
        recipe = Recipe(text=manifest.text)
        write_bundle(
            str(source),
            str(tmp_path / "bundle"),
            task=SINGLE_LABEL,
            labels=manifest.labels,
            text=manifest.text,
            metrics={},
            recipe=recipe,
            data_fingerprint="0" * 64,
        )

    assert "move it away" in todo_of(attempt, BundleError)
    (source / "pytorch_model.bin").rename(tmp_path / "pytorch_model.bin")
    attempt()
    load_bundle(str(tmp_path / "bundle"))


# --- command lines ----------------------------------------------------------------------------------------------------


def train_arguments(*words: str) -> argparse.Namespace:
    return train_command.parser().parse_args(words)


def test_a_forgotten_csv_or_out_can_be_named(tmp_path: Path) -> None:
    def attempt(*more: str) -> Recipe:
        return train_command.read_recipe(train_arguments("--recipe", "base", *more), needs_out=True)

    assert "--csv FILE" in todo_of(attempt)
    assert "--out DIR" in todo_of(lambda: attempt("--csv", "a.csv"))
    assert attempt("--csv", "a.csv", "--out", "out").data.csv == ("a.csv",)
    assert attempt("--set", "data.csv=a.csv", "--out", "out").data.csv == ("a.csv",)


def test_a_certificate_without_its_key_can_go_or_be_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    def attempt(*more: str) -> None:
        serve_command._run(serve_command.parser().parse_args(["--bundle", "no/such/bundle", *more]), 0.0)

    assert "give both, or neither" in todo_of(lambda: attempt("--tls-cert", "a.pem"))
    # Both ways lead on to the next problem.
    for more in ([], ["--tls-cert", "a.pem", "--tls-key", "b.pem"]):
        with pytest.raises(InputError) as caught:
            attempt(*more)
        assert "give both" not in caught.value.todo


def test_a_value_that_is_no_yaml_comes_with_the_set_that_is_one_name() -> None:
    for value in ("[1", "x: y: z", "{label #1: a}", "'it"):
        todo = todo_of(lambda value=value: parse_recipe("", [f"model.pretrained={value}"]), RecipeError)
        assert parse_recipe("", options(todo)).model.pretrained == value


def test_a_recipe_that_is_no_yaml_can_be_corrected_where_the_message_says() -> None:
    assert "quotes" in todo_of(lambda: parse_recipe("data: {label_column: 'stars}"), RecipeError)
    assert parse_recipe("data: {label_column: 'stars'}").data.label_column == "stars"


def test_an_unknown_key_is_among_those_that_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    todo = todo_of(lambda: parse_recipe("data: {labels_column: stars}"), RecipeError)
    command = shlex.split(todo.removesuffix(" lists every key"))
    with pytest.raises(SystemExit) as ended:
        train_command.parser().parse_args(command[command.index("--help-recipe") :])
    assert not ended.value.code
    assert "data.label_column = " in capsys.readouterr().out


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two CSV files."""
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("text,label\nfine,pos\nbad,neg\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_missing_file_comes_with_the_one_that_is_there(here: Path) -> None:
    (here / "reviews.csv").write_text("text,label\n")
    todo = todo_of(lambda: expand(["review.csv"]))
    (name,) = re.findall(r"did you mean (.*)\?", todo)
    assert [file.uri for file in expand([name])] == [str(here / "reviews.csv")]


def test_a_directory_comes_with_the_pattern_of_its_files(here: Path) -> None:
    (pattern,) = shlex.split(todo_of(lambda: expand(["."])).partition(": ")[2])
    assert len(expand([pattern])) == 2


def test_files_that_are_named_twice_can_be_named_once(here: Path) -> None:
    assert "name each file once" in todo_of(lambda: expand(["*.csv", "a.csv"]))
    assert len(expand(["*.csv"])) == 2


def test_a_column_that_stands_twice_can_be_renamed(here: Path) -> None:
    path = here / "a.csv"
    path.write_text("text,label,text\nfine,pos,x\n")

    def attempt() -> Any:
        return read_layout(InputFile(str(path), path.stat().st_size), DataSpec())

    assert "rename the others" in todo_of(attempt)
    path.write_text("text,label,text 2\nfine,pos,x\n")
    assert attempt().positions == (0, 1)


def test_a_position_beyond_the_fields_can_be_corrected(here: Path) -> None:
    path = here / "a.csv"
    path.write_text("fine,pos\n")

    def attempt(*settings: str) -> Any:
        data = parse_recipe("", ["data.header=false", *settings]).data
        return read_layout(InputFile(str(path), path.stat().st_size), data)

    todo = todo_of(lambda: attempt("data.text_columns=0", "data.label_column=2"))
    assert "data.label_column" in todo
    assert attempt("data.text_columns=0", "data.label_column=1").width == 2


@pytest.mark.parametrize(
    ("header", "settings", "expected"),
    [
        ("text,label,source", ["data.where={Source: a, text: fine}"], {"where": {"source": ("a",), "text": ("fine",)}}),
        ("text,label,source", ["data.where_not={sources: [a, b]}"], {"where_not": {"source": ("a", "b")}}),
        ("text,label", ["data.where={lang: en}"], {"where": {}}),
        ("review,label", [], {"text_columns": ("review",)}),
        ("text,stars", [], {"label_column": "stars"}),
    ],
)
def test_a_missing_column_comes_with_the_settings_under_which_all_are_there(
    here: Path, header: str, settings: list[str], expected: dict[str, Any]
) -> None:
    path = here / "a.csv"
    path.write_text(f"{header}\n")

    def attempt(*more: str) -> DataSpec:
        data = parse_recipe("", [*settings, *more]).data
        read_layout(InputFile(str(path), path.stat().st_size), data)
        return data

    data = attempt(*options(todo_of(attempt, DataError)))
    assert {key: getattr(data, key) for key in expected} == expected


FLAGS = "text,is_late,is_lost,is_paid\n" + "where is my parcel today,0,1,0\nI paid for it twice already,1,0,1\n" * 9


def test_a_file_of_label_columns_comes_with_the_settings_that_read_them(here: Path) -> None:
    path = here / "a.csv"
    path.write_text(FLAGS)
    file = InputFile(str(path), path.stat().st_size)
    todo = todo_of(lambda: read_layout(file, DataSpec()), DataError)
    data = with_label_columns([file], parse_recipe("", options(todo[todo.index("if ") :])).data)
    assert data.label_columns == ("is_late", "is_lost", "is_paid")
    # Whoever names one of them as the label reads of the others.
    layout = read_layout(file, DataSpec(label_column="is_lost"))
    (note,) = layout_notes([layout, layout])
    assert with_label_columns([file], parse_recipe("", options(note)).data).label_columns == data.label_columns
    assert not read_layout(file, UnlabelledSpec(label_column="is_lost")).notes
    path.write_text(FLAGS.replace("is_late", "late"))
    todo = todo_of(lambda: read_layout(file, DataSpec()), DataError)
    assert parse_recipe("", options(todo[todo.index("if ") :])).data.label_columns == ("late", "is_lost", "is_paid")


def test_two_columns_of_texts_come_with_the_setting_that_reads_them_as_pairs(here: Path) -> None:
    path = here / "a.csv"
    line = "where is my parcel today?,it will arrive by tomorrow noon,yes,7\n"
    path.write_text("question,answer,label,id\n" + line * 9)
    file = InputFile(str(path), path.stat().st_size)
    todo = todo_of(lambda: read_layout(file, DataSpec()), DataError)
    data = parse_recipe("data: {text_columns: text}", options(todo[todo.index("if ") :])).data
    assert data.pair == ("question", "answer")
    read_layout(file, data)


def test_a_line_without_an_end_comes_with_a_limit_that_takes_it(here: Path) -> None:
    path = here / "a.csv"
    path.write_bytes(b"text,label\n" + b"x" * 2**21 + b",pos\n")
    todo = todo_of(lambda: read([path], "data.max_cell_chars=1000"), DataError)
    assert read([path], *options(todo)).found.read == 1


def test_a_file_that_shrinks_is_read_once_nothing_writes_there(here: Path) -> None:
    size = (here / "a.csv").stat().st_size
    todo = todo_of(lambda: scan_range(str(here / "a.csv"), ",", 0, size + 100), DataError)
    assert todo == "run again when no program writes to it"
    assert scan_range(str(here / "a.csv"), ",", 0, size).lines == 3


@pytest.mark.parametrize("uri", ["https://user:secret@host/a.csv", "s3://key:secret@bucket/a.csv"])
def test_a_password_in_a_uri_can_be_taken_out(uri: str) -> None:
    assert "take them out" in todo_of(lambda: storage.absolute(uri))
    assert storage.absolute("s3://bucket/a.csv") == "s3://bucket/a.csv"


def test_a_package_that_is_missing_can_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "install it" in todo_of(lambda: storage.absolute("package://reviews_of_films/a.csv"))
    (tmp_path / "reviews_of_films").mkdir()
    (tmp_path / "reviews_of_films" / "a.csv").write_text("text,label\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert storage.absolute("package://reviews_of_films/a.csv") == str(tmp_path / "reviews_of_films" / "a.csv")


def test_a_place_that_is_taken_can_be_cleared_or_avoided(here: Path) -> None:
    source, target = here / "source", here / "target"
    for folder in (source, target):
        folder.mkdir()
        (folder / "a").write_text("content")
    todo = todo_of(lambda: put_directory(str(source), str(target), last="a"), RunDirError)
    assert todo == "move it away or write elsewhere"
    put_directory(str(source), str(here / "elsewhere"), last="a")
    target.rename(here / "away")
    put_directory(str(source), str(target), last="a")


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def model(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that may be changed."""
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))


def test_weights_that_would_be_unpickled_come_with_the_command_that_converts_them(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import load_file

    weights = load_file(model / "model.safetensors")
    torch.save(weights, model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    monkeypatch.chdir(tmp_path)
    todo = todo_of(lambda: find_model(ModelSpec(pretrained="model")), ModelError)
    python, *command = shlex.split(todo[todo.index("python -c ") : todo.index("; then ")])
    assert python == "python"
    subprocess.run([sys.executable, *command], check=True, capture_output=True, cwd=tmp_path)
    found = find_model(parse_recipe("", options(todo)).model)
    converted = load_file(Path(found.directory) / "model.safetensors")
    assert all(torch.equal(converted[name], tensor) for name, tensor in weights.items())
    spec = Recipe().text.model_copy(update={"max_tokens": 32})
    assert prepare_tokenizer(found.directory, spec).pad_id == 0


def test_another_hash_comes_with_the_setting_that_takes_the_file(model: Path) -> None:
    def attempt(*settings: str) -> str:
        asked = [f"model.pretrained={model}", f"model.sha256={'0' * 64}"]
        return find_model(parse_recipe("", [*asked, *settings]).model).directory

    assert attempt(*options(todo_of(attempt))) == str(model)


def test_a_hash_of_weights_in_parts_comes_with_the_setting_that_asks_for_none(model: Path) -> None:
    (model / "model.safetensors").rename(model / "model-00001-of-00001.safetensors")
    (model / "model.safetensors.index.json").write_text("{}")

    def attempt(*settings: str) -> str:
        asked = [f"model.pretrained={model}", f"model.sha256={'0' * 64}"]
        return find_model(parse_recipe("", [*asked, *(option.rstrip(",") for option in settings)]).model).directory

    assert attempt(*options(todo_of(attempt))) == str(model)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_configuration_can_be_copied_again(model: Path, tiny_model_dir: Path, content: str) -> None:
    (model / "config.json").write_text(content)
    assert todo_of(lambda: read_config(str(model))) == "copy the model again"
    shutil.copy(tiny_model_dir / "config.json", model)
    assert read_config(str(model))["model_type"] == "bert"


def test_a_path_that_leads_nowhere_can_be_corrected(model: Path) -> None:
    for wrong in (f"{model}s", f"file://{model}s"):
        with pytest.raises(ModelError):
            find_model(ModelSpec(pretrained=wrong))
    assert find_model(ModelSpec(pretrained=str(model))).directory == str(model)


def test_a_tokenizer_that_transformers_reads_otherwise_can_be_saved_anew(tiny_bundle: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from textcls.training.rehearsed_tokenizer import check_tokenizer

    def attempt(directory: str, max_tokens: int) -> None:
        spec = Recipe().text.model_copy(update={"max_tokens": max_tokens})
        check_tokenizer("it", str(tiny_bundle), InputTokenizer(prepare_tokenizer(directory, spec)))

    assert "save the tokenizer anew" in todo_of(lambda: attempt(str(tiny_bundle), 8), ModelError)
    AutoTokenizer.from_pretrained(tiny_bundle).save_pretrained(tmp_path)
    attempt(str(tmp_path), 32)


def test_a_rehearsal_without_room_goes_on_when_there_is_some(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import SafetensorError

    from textcls.training import rehearsal

    def attempt() -> list[str]:
        recipe = parse_recipe("", [f"model.pretrained={model}", "text.max_tokens=16", "train.precision=fp32"])
        return rehearsal.rehearse(recipe, prepare_tokenizer(str(model), recipe.text), str(model), SINGLE_LABEL)

    def full(*_: object) -> None:
        raise SafetensorError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(rehearsal, "write_weights", full)
        assert "free some space" in todo_of(attempt, StorageError)
    assert attempt() == []


# --- data -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [4, 6, 9])
@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_without_a_row_comes_with_a_share_that_gives_it_one(rows: int, split: str) -> None:
    sizes = np.array([rows, rows - 1])

    def attempt(*settings: str) -> None:
        recipe = parse_recipe("", ["split.val=0.01" if split == "val" else "split.test=0.01", *settings])
        test, val = rounded_shares(sizes, recipe.split).T
        counts = {"train": list(sizes - val), "val": list(val - test), "test": list(test)}
        checks.refuse_empty_splits(recipe.data, recipe.split, ["a", "b"], counts)

    attempt(*options(todo_of(attempt, DataError)))


def test_one_single_label_can_come_from_another_column() -> None:
    fit: dict[str, Any] = {"read": 9, "outside_where": 0, "reasons": {}, "examples": []}
    assert "data.label_column" in todo_of(lambda: checks.refuse_unfit(DataSpec(), labels=["one"], **fit))
    many = [str(i) for i in range(2000)]
    assert "data.label_column" in todo_of(
        lambda: checks.refuse_unfit(DataSpec(), labels=many, **(fit | {"read": 2000}))
    )
    checks.refuse_unfit(DataSpec(label_column="verdict"), labels=["one", "other"], **fit)


def test_rows_without_any_label_come_with_the_settings_to_check() -> None:
    fit: dict[str, Any] = {"read": 9, "outside_where": 0, "reasons": {}, "examples": []}
    cells = DataSpec(labels_in="cell")
    assert "data.label_column" in todo_of(lambda: checks.refuse_unfit(cells, labels=[], **fit))
    checks.refuse_unfit(cells, labels=["one", "other"], **fit)


def test_one_label_column_comes_with_the_settings_that_read_its_values_as_labels() -> None:
    fit: dict[str, Any] = {"read": 9, "outside_where": 0, "reasons": {}, "examples": []}
    recipe = parse_recipe("data: {label_columns: [spam]}")
    todo = todo_of(lambda: checks.refuse_unfit(recipe.data, labels=["spam"], **fit))
    corrected = parse_recipe("data: {label_columns: [spam]}", options(todo)).data
    assert (corrected.task_name, corrected.read_label_columns) == ("single_label", ("spam",))


def test_a_label_that_some_rows_have_and_others_lack_can_be_told_from_none(here: Path) -> None:
    path = here / "a.csv"
    path.write_text("text,label\n" + "".join(f"row {i},{'refund' * (i % 3 == 0)}\n" for i in range(30)))
    cells = read([path], "data.labels_in=cell")
    todo = todo_of(cells.refuse_unfit, DataError)
    assert read([path], "data.labels_in=cell", *options(todo)).found.labels == {"refund": 10, "no refund": 20}
    # The same file with one label a row: the only advice leads to the same two labels.
    todo = todo_of(read([path]).refuse_unfit, DataError)
    assert "max_reject_fraction" not in todo
    found = read([path], *options(todo))
    assert found.found.labels == {"refund": 10, "no refund": 20}
    found.refuse_unfit()


def test_a_pair_takes_the_place_of_the_text_columns_as_advised() -> None:
    recipe, pair = "data: {text_columns: text}", "data.pair=[question, answer]"
    todo = todo_of(lambda: parse_recipe(recipe, [pair]), RecipeError)
    assert parse_recipe(recipe, [pair, *options(todo)]).data.pair == ("question", "answer")
    # The recipe for one's own data names no text column, so that the documented command works.
    assert parse_recipe(recipe_text("base"), [pair]).data.pair == ("question", "answer")
    assert parse_recipe(recipe_text("base")).data.text_columns == ("text",)


def test_a_union_of_labels_comes_with_the_settings_that_keep_each_label_whole() -> None:
    todo = todo_of(lambda: parse_recipe("", ["data.on_conflict=union"]), RecipeError)
    data = parse_recipe("", ["data.on_conflict=union", *options(todo)]).data
    label = task_of(data).label_reader(data)(("a, b",)).label
    assert task_of(data).names_in(label) == ("a, b",)


def test_names_cut_at_a_delimiter_that_they_hold_are_told_and_can_be_read_whole(here: Path) -> None:
    path = here / "a.csv"
    path.write_text("text,label\n" + 'a text,"a,b ""q"""\nother,c\nthird,\n' * 20)
    cut = read([path], "data.task=multi_label")
    (told,) = together_warnings(cut.data, cut.found.labels, cut.found.companions)
    assert "'a' and 'b \"q\"' (20 rows)" in told
    whole = read([path], "data.task=multi_label", *options(told))
    assert whole.found.labels == {'a,b "q"': 20, "c": 20}
    assert together_warnings(whole.data, whole.found.labels, whole.found.companions) == []
    # A dry run says how many rows have no label and how many have several.
    assert [*label_lines(cut.found)] == ["labels a row: none in 20 rows, 1 in 20 rows, 2 in 20 rows"]
    assert [*label_lines(read([path], "data.label_map={'': d}").found)] == []


def test_lists_in_cells_come_with_a_setting_that_needs_no_delimiter() -> None:
    names = {'["a", "b"]': 9, '["b", "a"]': 9, '["a"]': 9, "[]": 9}
    (told,) = several_labels_warnings(DataSpec(), names)
    assert options(told) == ["data.labels_in=cell"]


def test_a_value_that_ends_in_punctuation_is_quoted_in_a_sentence() -> None:
    assert set_option("data.label_delimiter", ",") == "--set 'data.label_delimiter=,'"


def test_a_pattern_of_label_columns_can_be_corrected(here: Path) -> None:
    (here / "data.csv").write_text("text,is_a,is_b\nfine,0,1\n")
    files = expand(["data.csv"])

    def attempt(pattern: str) -> DataSpec:
        return with_label_columns(files, DataSpec.model_validate({"label_columns": [pattern]}))

    assert "correct the pattern" in todo_of(lambda: attempt("has_*"))
    assert attempt("is_*").label_columns == ("is_a", "is_b")


def test_conflicts_that_are_rejects_come_with_the_settings_that_train(here: Path) -> None:
    reasons = {"conflicting_labels": 30, "missing_text": 1}
    data = DataSpec(on_conflict="reject")
    more, first = options(todo_of(lambda: checks.refuse_conflicts(data, 100, reasons)))
    checks.refuse_conflicts(parse_recipe("data: {on_conflict: reject}", [more]).data, 100, reasons)
    assert parse_recipe("data: {on_conflict: reject}", [first]).data.on_conflict == "first"


@pytest.mark.parametrize("content", ["data: {label_columns: [a, b, c]}", "data: {labels_in: cell, labels: [a, b, c]}"])
def test_labels_without_training_rows_can_be_left_out_of_columns_and_cells(content: str) -> None:
    data, counts = parse_recipe(content).data, {"train": (5, 0, 5), "val": (1, 0, 1), "test": (1, 0, 1)}
    todo = todo_of(lambda: checks.refuse_empty_splits(data, SplitSpec(), ("a", "b", "c"), counts))
    corrected = parse_recipe(content, options(todo)).data
    assert "b" not in (corrected.labels or corrected.label_columns)


def test_cells_that_look_like_several_labels_come_with_the_settings_that_read_them() -> None:
    tokens = {"unknown_fraction": 0.0}
    counts = {"billing|refund": 12, "billing": 20, "refund": 30, "refund|shipping": 9}
    told = checks.warnings(DataSpec(), list(counts), counts, (0, []), tokens)
    (found,) = [one for one in told if "several labels" in one]
    data = parse_recipe("", options(found)).data
    assert (data.task_name, data.label_delimiter) == ("multi_label", "|")
    names = {"billing;refund": 5, "refund": 9, "billing": 9, "shipping; refund": 5}
    (other,) = several_labels_warnings(data, names)
    assert parse_recipe("", options(other)).data.label_delimiter == ";"


def test_a_delimiter_in_labels_whose_parts_do_not_recur_is_part_of_their_names() -> None:
    assert several_labels_warnings(DataSpec(), {"Earth, sea": 50, "Wind, fire": 40, "none": 9}) == []


def test_long_texts_come_with_the_setting_that_sees_all_of_them() -> None:
    rows = RowSummary(rows=8, token_histogram=np.bincount([60] * 6 + [300] * 2), windows=6 + 2 * 8)
    told = [
        suggestion(rows.token_histogram, TextSpec(max_tokens=64, on_long=how), 128) for how in ("truncate", "error")
    ]
    assert told[0] == told[1]
    text = parse_recipe("", [options(str(told[0]))[-1]]).text
    assert text.on_long == "windows"
    assert suggestion(rows.token_histogram, text, 128) is None
    tokens = rows.token_lengths(64)
    assert (tokens["truncated_fraction"], tokens["windows"]) == (0, 22)


# --- runs -------------------------------------------------------------------------------------------------------------


def interrupted(place: Path, recipe: Recipe) -> Path:
    """An --out that a run with a checkpoint left."""
    RunDir.claim(str(place), recipe, resume=False)
    storage.write_bytes(str(place / "training" / "attempt-0001" / "step-00000005" / CHECKPOINT), b"{}")
    return place


def test_a_run_of_another_recipe_comes_with_the_options_that_resume_it(tmp_path: Path) -> None:
    given = ["data.csv=[a.csv, b c.csv]", "train.epochs=2", "data.label_map={010: ten}", "text.lowercase=false"]
    given += ["train.class_weights=balanced", "model.dropout=0.2", "data.labels=[ten, two]"]
    out = interrupted(tmp_path / "out", parse_recipe("", given))

    def attempt(*words: str) -> RunDir:
        arguments = train_arguments("--recipe", "base", "--out", str(out), "--csv", "c.csv", *words)
        return RunDir.claim(
            arguments.out, train_command.read_recipe(arguments, needs_out=True), resume=arguments.resume
        )

    todo = todo_of(lambda: attempt("--resume", "--set", "train.epochs=9", "--set", "train.patience=3"), RunDirError)
    words = shlex.split(todo.removesuffix(" resumes it; or name a new --out"))
    assert attempt("--set", "train.epochs=9", "--set", "train.patience=3", *words).resumed


def test_an_interrupted_run_can_be_resumed_or_left(tmp_path: Path) -> None:
    out = interrupted(tmp_path / "out", Recipe())
    assert "--resume continues it" in todo_of(lambda: RunDir.claim(str(out), Recipe(), resume=False), RunDirError)
    assert RunDir.claim(str(out), Recipe(), resume=True).resumed
    assert not RunDir.claim(str(tmp_path / "new"), Recipe(), resume=False).resumed


def test_a_directory_that_cannot_be_used_can_be_left_for_a_new_one(tmp_path: Path) -> None:
    finished, strange, damaged = tmp_path / "finished", tmp_path / "strange", tmp_path / "damaged"
    RunDir.claim(str(finished), Recipe(), resume=False)
    storage.write_bytes(str(finished / "bundle" / MANIFEST), b"{}")
    storage.write_bytes(str(strange / "cat.png"), b"")
    storage.write_bytes(str(damaged / "run.json"), b"{")
    for place in (finished, strange, damaged):
        assert "new" in todo_of(lambda place=place: RunDir.claim(str(place), Recipe(), resume=False), RunDirError)
        RunDir.claim(f"{place}-again", Recipe(), resume=False)


def test_an_interrupted_run_is_told_to_resume_only_where_there_is_a_checkpoint(tmp_path: Path) -> None:
    arguments = train_arguments("--recipe", "base", "--csv", "a.csv", "--out", str(tmp_path / "out"))
    assert train_command._how_to_continue(arguments) == ""
    RunDir.claim(str(tmp_path / "out"), Recipe(), resume=False)
    assert train_command._how_to_continue(arguments).endswith("the same command begins again")
    RunDir.claim(str(tmp_path / "out"), Recipe(), resume=False)
    interrupted(tmp_path / "out", Recipe())
    assert "--resume continues" in train_command._how_to_continue(arguments)


def test_nothing_to_resume_can_be_begun(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert "leave --resume out" in todo_of(lambda: RunDir.claim(out, Recipe(), resume=True), RunDirError)
    assert not RunDir.claim(out, Recipe(), resume=False).resumed


def test_other_rows_can_be_put_back_or_left(tmp_path: Path) -> None:
    run = RunDir.claim(str(tmp_path / "out"), Recipe(), resume=False)
    run.bind_data("a" * 64)
    assert "restore them" in todo_of(lambda: run.bind_data("b" * 64), RunDirError)
    run.bind_data("a" * 64)


@pytest.mark.parametrize(
    ("nodes", "settings"),
    [
        ([{"CPU": 2}], ["scale.workers=9"]),
        ([{"CPU": 2}], ["scale.workers=9", "scale.cpus_per_worker=1"]),
        ([{"CPU": 2}, {"CPU": 4}], ["scale.cpus_per_worker=8"]),
        ([{"CPU": 2}], ["scale.use_gpu=true"]),
        ([{"CPU": 2}], ["scale.use_gpu=true", "scale.workers=2"]),
        ([{"CPU": 8, "GPU": 2}], ["scale.workers=4"]),
    ],
)
@pytest.mark.parametrize("planner", [scoring_workers, training_workers], ids=["scoring", "training"])
def test_more_workers_than_fit_come_with_settings_that_do(
    planner: Any, nodes: list[dict[str, int]], settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = [{"Resources": node, "Alive": True, "NodeID": str(i)} for i, node in enumerate(nodes)]
    monkeypatch.setattr(planner.ray, "nodes", lambda: alive)
    monkeypatch.setattr(training_workers, "_may_grow", lambda *_: False)

    def attempt(*more: str) -> Any:
        scale = parse_recipe("", [*settings, *more]).scale
        return (
            planner.plan_pool(scale, items=99) if planner is scoring_workers else planner.plan_training_workers(scale)
        )

    more: list[str] = []
    for _ in range(3):  # each to-do ends one problem
        try:
            attempt(*more)
        except RecipeError as error:
            more += [option.rstrip(",") for option in options(error.todo)]
        else:
            break
    assert more
    assert attempt(*more).count >= 1


def test_a_damaged_checkpoint_can_be_removed_for_the_one_before_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = RunDir.claim(str(out), Recipe(), resume=False)
    for step in (5, 9):
        folder = out / "training" / "attempt-0001" / f"step-{step:08d}"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"weights")
        files = {"model.safetensors": hashlib.sha256(b"weights").hexdigest()}
        (folder / CHECKPOINT).write_text(json.dumps({"run_id": "id", "files": files, "progress": {}}))
    newest = run.latest_checkpoint("id")
    for damaged in (CHECKPOINT, "model.safetensors"):
        (Path(newest) / damaged).write_bytes(b"torn")
        todo = todo_of(lambda: run.latest_checkpoint("id"), RunDirError)
        assert f"remove {newest} and --resume continues from the checkpoint before it" in todo
    shutil.rmtree(newest)
    assert run.latest_checkpoint("id").endswith("step-00000005")
    assert "use another --out" in todo_of(lambda: run.latest_checkpoint("other"), RunDirError)
    assert RunDir.claim(str(tmp_path / "new"), Recipe(), resume=False).latest_checkpoint("other") == ""


# --- batch jobs and services ------------------------------------------------------------------------------------------


def test_an_out_that_holds_something_can_be_left_for_a_new_one(tmp_path: Path) -> None:
    from textcls.batch.evaluate import EVALUATION

    for name in ("report.json", "cat.png"):
        (tmp_path / name).write_bytes(b"{}")
        assert "name a new directory with --out" in todo_of(lambda: claim(str(tmp_path), EVALUATION), RunDirError)
        (tmp_path / name).unlink()
    assert claim(str(tmp_path / "new"), EVALUATION).uri == str(tmp_path / "new")

    job = {"bundle": "0"}
    for name in (PREDICTIONS, "cat.png"):
        place = tmp_path / f"of {name}"
        storage.write_bytes(str(place / name), b"{}")
        assert "new directory" in todo_of(lambda place=place: PredictionsDir.claim(str(place), job, suffix="csv"))
    PredictionsDir.claim(str(tmp_path / "of it"), job, suffix="csv")
    for content in (b"{", b"[]"):
        storage.write_bytes(str(tmp_path / "of it" / "progress" / "job.json"), content)
        assert "new --out" in todo_of(lambda: PredictionsDir.claim(str(tmp_path / "of it"), job, suffix="csv"))
    assert not PredictionsDir.claim(str(tmp_path / "of another"), job, suffix="csv").resumed


def test_predictions_begun_otherwise_go_on_with_the_same_command(tmp_path: Path) -> None:
    place = str(tmp_path / "out")
    PredictionsDir.claim(place, {"bundle": "0"}, suffix="csv")
    todo = todo_of(lambda: PredictionsDir.claim(place, {"bundle": "1"}, suffix="csv"))
    assert "give the same command" in todo
    assert PredictionsDir.claim(place, {"bundle": "0"}, suffix="csv").resumed


def test_an_encoding_of_csv_parts_comes_with_the_format_that_has_one() -> None:
    def attempt(*more: str) -> None:
        words = ["--bundle", "no/such/bundle", "--csv", "a.csv", "--out", "out", *more]
        predict_command._run(predict_command.parser().parse_args(words), 0.0)

    encoding = ["--csv-encoding", "utf-8-sig"]
    assert "add --format csv" in todo_of(lambda: attempt(*encoding))
    for more in ([*encoding, "--format", "csv"], []):  # the next problem is another one
        assert "--format" not in todo_of(lambda more=more: attempt(*more))


def test_rows_to_label_come_with_the_way_to_choose_them() -> None:
    def attempt(*more: str) -> None:
        words = ["--bundle", "no/such/bundle", "--csv", "a.csv", "--out", "out", *more]
        predict_command._run(predict_command.parser().parse_args(words), 0.0)

    for wrong in (["--rank-rows", "500"], ["--rank-rows", "0", "--rank-by", "uncertainty"]):
        todo = todo_of(lambda wrong=wrong: attempt(*wrong))
        assert "give both, such as --rank-by uncertainty --rank-rows 500, or neither" in todo
    for more in (["--rank-by", "uncertainty", "--rank-rows", "500", "--csv-encoding", "utf-8-sig"], []):
        assert "--" not in todo_of(lambda more=more: attempt(*more))  # the next problem is another one


def test_a_port_that_is_taken_and_an_address_of_a_cluster_can_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    from textcls.serving.local import service
    from textcls.serving.local.haproxy import failure

    with socket.socket() as taken, socket.socket() as free:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        host, port = taken.getsockname()
        assert "--port" in todo_of(lambda: service._refuse_a_taken_port(host, port))
        assert failure({"kind": "address", "found": "taken"}).todo == "another --port"
        free.bind(("127.0.0.1", 0))
        other = free.getsockname()[1]
    service._refuse_a_taken_port(host, other)

    def attempt() -> None:
        service.run_service("no/such/bundle", ServeSpec(), host=host, port=other, say=print)

    monkeypatch.setenv("RAY_ADDRESS", "ray.example:6379")
    assert "unset RAY_ADDRESS" in todo_of(attempt)
    monkeypatch.delenv("RAY_ADDRESS")
    assert "RAY_ADDRESS" not in todo_of(attempt)
