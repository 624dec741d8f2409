"""Settings of batch jobs: the bundle's, with what the user says differs now, and nothing that has no meaning."""

from dataclasses import replace
from pathlib import Path

import pytest

from textcls.batch.settings import (
    UnlabelledSpec,
    changed_text,
    evaluate_settings,
    nothing_scored,
    predict_settings,
    with_small_shards,
)
from textcls.bundle import Bundle
from textcls.data.input_files import InputFile
from textcls.errors import RecipeError
from textcls.manifest import Manifest
from textcls.settings.data import DataSpec
from textcls.settings.recipe import TextSpec
from textcls.settings.recipe_file import parse_recipe
from textcls.tasks.single_label import SINGLE_LABEL

RECIPE = """
data:
  csv: learned-from.csv
  text_columns: [title, body]
  label_column: stars
  where: {source: web}
  delimiter: ';'
  label_map: {'1': bad, '5': good, '9': never seen}
  max_reject_fraction: 0.5
scale: {workers: 8, use_gpu: true}
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    manifest = Manifest(
        task="single_label",
        scoring="softmax",
        labels=("bad", "good"),
        text=TextSpec(),
        metrics={},
        recipe=parse_recipe(RECIPE).model_dump(mode="json"),
        recipe_fingerprint="0" * 64,
        data_fingerprint="0" * 64,
        versions={},
        files={},
    )
    return Bundle(str(tmp_path), str(tmp_path), manifest, SINGLE_LABEL, "0" * 64)


def test_rows_are_evaluated_as_the_recipe_reads_them_with_the_labels_of_the_bundle(bundle: Bundle) -> None:
    data = evaluate_settings(bundle, ["new.csv"], []).data
    learned = parse_recipe(RECIPE).data
    assert data == learned.model_copy(update={"csv": ("new.csv",), "labels": ("bad", "good")})


def test_rows_to_predict_need_no_label_and_no_where(bundle: Bundle) -> None:
    data = predict_settings(bundle, ["new.csv"], []).data
    assert (data.csv, data.columns, data.delimiter) == (("new.csv",), ("title", "body"), ";")
    assert (data.where, data.labels, data.label_map) == ({}, None, {})


def test_a_set_overrides_the_recipe(bundle: Bundle) -> None:
    overrides = ["data.label_column=verdict", "data.where={}", "data.text_columns=text", "scale.workers=2"]
    spec = evaluate_settings(bundle, ["new.csv"], overrides)
    assert spec.data.columns == ("text", "verdict")
    assert spec.scale.workers == 2
    assert predict_settings(bundle, ["new.csv"], ["data.text_columns=stars"]).data.columns == ("stars",)
    without_header = ["data.header=false", "data.text_columns=[3]"]
    assert predict_settings(bundle, ["new.csv"], without_header).data.columns == ("3",)


def test_a_set_leaves_the_bundle_as_it_is(bundle: Bundle) -> None:
    assert evaluate_settings(bundle, ["new.csv"], ["data.label_map.010=bad"]).data.label_map["010"] == "bad"
    assert "010" not in evaluate_settings(bundle, ["new.csv"], []).data.label_map


def test_the_machines_that_trained_say_nothing_of_those_that_score(bundle: Bundle) -> None:
    assert predict_settings(bundle, ["new.csv"], []).scale.workers == "auto"
    assert evaluate_settings(bundle, ["new.csv"], []).scale.use_gpu == "auto"


@pytest.mark.parametrize("settings", [evaluate_settings, predict_settings])
@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("text.max_tokens=512", "the bundle determines how texts are scored"),
        ("model.pretrained=x", "the bundle determines how texts are scored"),
        ("data.csv=x.csv", "data.csv has no meaning here"),
        ("data.labels=[a, b]", "data.labels has no meaning here"),
        ("data.text_column=text", "did you mean data.text_columns?"),
        ("data.delimiter=ab", "one ASCII character"),
        ("delimiter=;", "the bundle determines how texts are scored"),
    ],
)
def test_a_set_without_a_meaning_is_refused(bundle: Bundle, settings: object, override: str, told: str) -> None:
    with pytest.raises(RecipeError, match=r"(?s).*" + told):
        settings(bundle, ["new.csv"], [override])  # type: ignore[operator]


@pytest.mark.parametrize(
    "override", ["data.where={a: b}", "data.where.a=b", "data.where_not={a: b}", "data.label_column=x"]
)
def test_a_prediction_leaves_no_row_out_and_asks_for_no_label(bundle: Bundle, override: str) -> None:
    with pytest.raises(RecipeError, match="every row is predicted"):
        predict_settings(bundle, ["new.csv"], [override])


@pytest.mark.parametrize("on_long", ["windows", "error"])
def test_what_becomes_of_long_texts_can_change_without_training(bundle: Bundle, on_long: str) -> None:
    text, others = changed_text(bundle, ["data.label_column=x", f"text.on_long={on_long}", "scale.workers=2"])
    assert text == bundle.manifest.text.model_copy(update={"on_long": on_long})
    assert others == ["data.label_column=x", "scale.workers=2"]
    assert bundle.with_text(text).manifest.text == text
    assert bundle.manifest.text.on_long == "truncate"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ([], "would score texts as .* does"),
        (["data.label_column=x"], "would score texts as .* does"),
        (["text.on_long=truncate"], "would score texts as .* does"),
        (["text.on_long=windows", "text.max_tokens=64"], "text.max_tokens cannot change without training"),
        (["calibration.min_precision=0.9"], "calibration.min_precision cannot change without training"),
        (["on_long=windows"], "on_long cannot change without training"),
        (["text.on_long=window"], "text.on_long"),
    ],
)
def test_a_change_that_takes_training_is_refused_with_what_is_possible(
    bundle: Bundle, overrides: list[str], told: str
) -> None:
    with pytest.raises(RecipeError, match=rf"(?s){told}.*windows"):
        changed_text(bundle, overrides)


def test_pairs_do_not_become_windows(bundle: Bundle) -> None:
    recipe = {**bundle.manifest.recipe, "data": {"pair": ["a", "b"]}}
    pairs = replace(bundle, manifest=bundle.manifest.model_copy(update={"recipe": recipe}))
    with pytest.raises(RecipeError, match="pairs of texts"):
        changed_text(pairs, ["text.on_long=windows"])
    assert changed_text(pairs, ["text.on_long=error"])[0].on_long == "error"


@pytest.mark.parametrize(
    ("sizes", "largest", "expected"),
    [
        ([100], 2**25, 2**20),
        ([100], 50, 50),
        ([2**30], 2**25, 2**22),
        ([2**29, 2**29], 2**25, 2**22),
        ([2**40], 2**25, 2**25),
    ],
)
def test_shards_suit_the_input(sizes: list[int], largest: int, expected: int) -> None:
    files = [InputFile(f"{i}.csv", size) for i, size in enumerate(sizes)]
    assert with_small_shards(DataSpec(shard_bytes=largest), files).shard_bytes == expected


@pytest.mark.parametrize(
    ("errors", "todo"),
    [
        ({"undecodable": 30, "missing_text": 1}, "--set data.encoding=cp1252"),
        ({"text_too_long": 2}, "textcls rebundle with --set text.on_long=truncate or windows"),
        ({"empty_text": 2}, "use a bundle of their language"),
    ],
)
def test_where_no_row_can_be_scored_the_todo_is_of_the_most_frequent_reason(
    tmp_path: Path, errors: dict[str, int], todo: str
) -> None:
    path, data = tmp_path / "r.csv", UnlabelledSpec()
    path.write_bytes(b"text\n" + "caf\xe9 cr\xe8me\n".encode("latin-1") * 30)
    files = [InputFile(str(path), path.stat().st_size)]
    refused = nothing_scored(errors, data, files, where="parts lists them")
    assert refused.found.startswith(f"none of the {sum(errors.values())} rows could be scored: ")
    assert todo in refused.todo
    assert refused.todo.endswith("; parts lists them")
    assert refused.exit_status == 2
