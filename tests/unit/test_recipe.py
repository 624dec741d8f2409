"""The laws of a recipe: what cannot be meant is refused with the nearest thing that can, and what is meant is kept."""

import contextlib
import json
import pickle
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.unit.reading import options
from textcls.errors import RecipeError
from textcls.settings.data import DataSpec
from textcls.settings.recipe import Recipe
from textcls.settings.recipe_file import describe_keys, keys_of, parse_recipe
from textcls.settings.yaml_text import escaped, set_option

ROOT = Path(__file__).parents[2]
KEYS = [key for key, _, _ in describe_keys()]

# For each key, as YAML, a valid value that is not the default.
OTHER = {
    "data.csv": "a.csv",
    "data.text_columns": "[title, body]",
    "data.pair": "[question, answer]",
    "data.label_column": "stars",
    "data.task": "multi_label",
    "data.labels_in": "cell",
    "data.label_delimiter": "; ",
    "data.label_columns": "[billing, refund]",
    "data.label_cells": "{x: 1}",
    "data.on_conflict": "reject",
    "data.decisions": "[runs/audit/audit.csv]",
    "data.exclude": "[forget.txt]",
    "data.exclude_by": "customer",
    "data.where": "{source: [a, b]}",
    "data.where_not": "{source: [c]}",
    "data.header": "false",
    "data.delimiter": "tab",
    "data.quoting": "none",
    "data.skip_initial_space": "true",
    "data.escape": "\\",
    "data.encoding": "latin-1",
    "data.label_map": "{'0': negative}",
    "data.labels": "[negative, positive]",
    "data.on_duplicate": "keep_all",
    "data.max_reject_fraction": "0.5",
    "data.max_cell_chars": "100",
    "data.shard_bytes": "100",
    "split.val": "0.3",
    "split.test": "0.3",
    "split.seed": "7",
    "split.group_by": "b",
    "split.fold": "2/5",
    "text.lowercase": "false",
    "text.unicode_form": "NFKC",
    "text.max_tokens": "64",
    "text.on_long": "windows",
    "text.mask": "[email, phone]",
    "text.mask_patterns": "{own: x+}",
    "model.pretrained": "distilbert-base-uncased",
    "model.revision": "abc",
    "model.sha256": "a" * 64,
    "model.dropout": "0.0",
    "train.epochs": "4",
    "train.rows_per_step": "16",
    "train.learning_rate": "3.0e-5",
    "train.weight_decay": "0",
    "train.warmup_fraction": "0",
    "train.max_grad_norm": "2",
    "train.label_smoothing": "0.1",
    "train.class_weights": "balanced",
    "train.precision": "fp32",
    "train.select_by": "loss",
    "train.patience": "2",
    "train.checkpoint_every_steps": "100",
    "train.max_tokens_per_micro_batch": "4096",
    "train.seed": "7",
    "privacy.epsilon": "8.0",
    "privacy.weights": "all",
    "privacy.delta": "1.0e-6",
    "privacy.max_grad_norm": "1.0",
    "calibration.temperature": "false",
    "calibration.min_precision": "0.9",
    "report.slices": "[channel]",
    "report.texts": "true",
    "report.explain_rows": "200",
    "scale.workers": "2",
    "scale.use_gpu": "false",
    "scale.cpus_per_worker": "2",
    "scale.max_failures": "0",
    "scale.hang_timeout_s": "60.0",
    "scale.start_timeout_s": "60.0",
    "scale.resize_after_s": "5.0",
    "serve.max_batch_tokens": "8192",
    "serve.max_queued_texts": "1024",
    "serve.max_wait_s": "2",
    "serve.max_texts_per_request": "32",
    "serve.max_chars_per_text": "1000",
    "serve.max_body_bytes": "100000",
    "serve.body_timeout_s": "5",
    "serve.explain_share": "0.1",
    "serve.max_words_to_explain": "50",
    "serve.api_key_from": "env:KEY",
    "serve.cors_origins": '["https://app.example.com"]',
    "serve.min_replicas": "2",
    "serve.max_replicas": "4",
    "serve.target_ongoing_requests": "8",
    "serve.cpus_per_replica": "2",
    "serve.threads": "1",
    "serve.gpu_share": "0.5",
    "serve.precision": "fp32",
    "serve.allow_new_labels": "true",
    "serve.log_requests": "false",
}
# Without a header, columns are positions.
BESIDE = {
    "data.exclude_by": ["data.exclude=keys.txt"],
    "data.label_cells": ["data.label_columns=[billing, refund]"],
    "data.header": ["data.text_columns=0", "data.label_column=1"],
    "serve.min_replicas": ["serve.max_replicas=2"],
    "split.group_by": ["data.pair=[a, b]"],
}


def at(recipe: Recipe, key: str) -> Any:
    section, name = key.split(".")
    return getattr(getattr(recipe, section), name)


# --- unknown keys ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_an_unknown_key_is_refused_with_the_key_that_was_meant(key: str) -> None:
    section, name = key.split(".")
    for i in range(len(name)):
        wrong = name[:i] + name[i + 1 :]
        if f"{section}.{wrong}" in KEYS or not wrong:
            continue
        with pytest.raises(RecipeError) as caught:
            parse_recipe(yaml.safe_dump({section: {wrong: None}}))
        assert f"there is no key {section}.{wrong}; did you mean {key}?" in str(caught.value)


@pytest.mark.parametrize("section", list(Recipe.model_fields))
def test_an_unknown_section_is_refused_with_the_section_that_was_meant(section: str) -> None:
    for i in range(len(section)):
        wrong = section[:i] + section[i + 1 :]
        with pytest.raises(RecipeError, match=f"there is no key {wrong}; did you mean {section}\\?"):
            parse_recipe(f"{wrong}: {{}}")


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe("train: {epochs: 0, epoch: 1}\nsplit: {val: 2}\nmodle: {}", source="my.yaml")
    for told in ("my.yaml", "train.epochs", "found '0'", "train.epoch;", "split.val", "modle; did you mean model?"):
        assert told in str(caught.value)


# --- --set -----------------------------------------------------------------------------------------------------------


def test_every_key_has_another_value_in_this_test() -> None:
    assert list(OTHER) == KEYS


@pytest.mark.parametrize("key", KEYS)
def test_set_does_what_the_same_line_in_the_file_does(key: str) -> None:
    beside = BESIDE.get(key, [])
    section, name = key.split(".")
    by_set = parse_recipe("", [*beside, f"{key}={OTHER[key]}"])
    by_file = parse_recipe(f"{section}:\n  {name}: {OTHER[key]}\n", beside)
    assert by_set == by_file
    assert at(by_set, key) != at(Recipe(), key)


@pytest.mark.parametrize("key", KEYS)
def test_set_replaces_what_the_file_says(key: str) -> None:
    section, name = key.split(".")
    default = json.dumps(at(Recipe(), key), default=list)
    recipe = parse_recipe(f"{section}:\n  {name}: {OTHER[key]}\n", [f"{key}={default}"])
    assert recipe == Recipe()


def test_a_recipe_survives_being_written_and_read() -> None:
    alone = (
        "data.header",
        "data.pair",
        "data.labels_in",
        "split.group_by",
        "privacy.epsilon",
    )  # other settings do not go with them
    recipe = parse_recipe("", [f"{key}={value}" for key, value in OTHER.items() if key not in alone])
    assert parse_recipe(yaml.safe_dump(recipe.model_dump(mode="json"))) == recipe
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert pickle.loads(pickle.dumps(recipe)) == recipe  # as Ray carries it


def test_the_last_set_wins() -> None:
    assert parse_recipe("", ["train.epochs=2", "train.epochs=5"]).train.epochs == 5


def test_set_of_a_mapping_replaces_it_and_of_one_of_its_keys_adds_to_it() -> None:
    text = "data: {where: {source: a}}"
    assert parse_recipe(text, ["data.where={}"]).data.where == {}
    assert parse_recipe(text, ["data.where={lang: en}"]).data.where == {"lang": ("en",)}
    assert parse_recipe(text, ["data.where.lang=en"]).data.where == {"source": ("a",), "lang": ("en",)}


@pytest.mark.parametrize(
    "override", ["", "=", "epochs=2", "train.epochs", "train.=2", ".epochs=2", "train..epochs=2", "=2", "a.b"]
)
def test_a_set_that_is_none_is_refused(override: str) -> None:
    with pytest.raises(RecipeError, match=r"section\.key=value"):
        parse_recipe("", [override])


@pytest.mark.parametrize("override", ["train.epochs.more=2", "split.val.x.y=1"])
def test_a_set_below_a_value_is_refused(override: str) -> None:
    with pytest.raises(RecipeError, match="is a value, not a section"):
        parse_recipe("train: {epochs: 1}\nsplit: {val: 0.1}", [override])


@pytest.mark.parametrize(
    "value", ["[1", "{a: b", "'x", "a: b: c", "%x", "!!python/name:os.system", "!!int x", "{a: b #c}", "[" * 9999]
)
def test_a_set_whose_value_is_no_yaml_is_refused(value: str) -> None:
    with pytest.raises(RecipeError, match="data"):
        parse_recipe("", [f"data.label_column={value}"])


# --- YAML's traps ----------------------------------------------------------------------------------------------------


WORDS = [
    "010",
    "1.10",
    "+1",
    "-1",
    "12:30",
    "0x1F",
    "0o17",
    "1e3",
    "1_000",
    ".5",
    ".inf",
    ".nan",
    "2001-12-14",
    "2001-13-45",
    "=",
    "<<",
    "no",
    "NO",
    "off",
    "yes",
    "true",
    "on",
    "y",
]


@pytest.mark.parametrize(
    "word", [*WORDS, "2001-12-14 21:59:43.10 -5", "N/A", "#1", "label#1", "NaN", "None", "١", "1,5"]
)
def test_a_name_is_the_text_that_was_typed(word: str) -> None:
    set_to = [f"data.label_column={word}", f"data.text_columns={word}x", f"data.where.lang={word}", f"data.csv={word}"]
    data = parse_recipe("", [*set_to, f"model.pretrained={word}"]).data
    assert (data.label_column, data.text_columns, data.where) == (word, (f"{word}x",), {"lang": (word,)})
    assert data.csv == (word,)
    if not set(word) & set("#,"):
        assert parse_recipe(f"data:\n  label_column: {word}\n").data.label_column == word
        by_set = parse_recipe("", [f"data.label_map={{{word} : {word}}}"] if word != "<<" else ["data.label_map.<<=<<"])
        assert by_set.data.label_map == {word: word}
        assert parse_recipe(f"data: {{where: {{lang: [{word}, b]}}, labels: [{word}, b]}}").data.labels == (word, "b")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("{010: ten}", {"010": "ten"}),
        ("{1.10: new, 1.2: old}", {"1.10": "new", "1.2": "old"}),
        ("{+1: pos, -1: neg}", {"+1": "pos", "-1": "neg"}),
        ('{"0": negative, \'1\': "positive"}', {"0": "negative", "1": "positive"}),
        ("{yes: no, no: 12:30}", {"yes": "no", "no": "12:30"}),
    ],
)
def test_a_label_map_is_spelled_as_the_csv_is(value: str, expected: dict[str, str]) -> None:
    assert parse_recipe("", [f"data.label_map={value}"]).data.label_map == expected
    assert parse_recipe(f"data: {{label_map: {value}}}").data.label_map == expected


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("label #1", "label #1"),
        ("#1", "#1"),
        (" label ", "label"),
        ("'label #1'", "label #1"),
        ('" label "', " label "),
        ("--- a", "--- a"),
        ("...", "..."),
        ("null #1", "null #1"),
        ("a: b", None),
        ("{label #1: x}", None),
        ("[a, b] # two", None),
    ],
)
def test_the_value_of_a_set_has_no_comments(value: str, name: str | None) -> None:
    if name is not None:
        assert parse_recipe("", [f"data.label_column={value}"]).data.label_column == name
        return
    with pytest.raises(RecipeError, match=r"double quotes|put the name in quotes"):
        parse_recipe("", [f"data.label_column={value}"])


@pytest.mark.parametrize("word", ["null", "NULL", "Null", "~", ""])
def test_a_word_for_nothing_is_not_taken_for_a_name(word: str) -> None:
    for text in (
        f"data: {{label_column: {word}}}",
        f"data: {{labels: [{word or '~'}, b]}}",
        f"data: {{label_map: {{a: {word}}}}}",
        f"data: {{label_map: {{{word or '~'}: a}}}}",
        f"data: {{where: {{lang: [{word or '~'}]}}}}",
        f"data: {{text_columns: [{word or '~'}]}}",
    ):
        with pytest.raises(RecipeError, match="put the name in quotes"):
            parse_recipe(text)
    assert parse_recipe(f"data: {{label_column: '{word or 'x'}'}}").data.label_column == (word or "x")


@pytest.mark.parametrize(
    "text",
    [
        "data: {label_map: {a: x, a: y}}",
        "data: {label_map: {1: x, '1': y}}",
        "data: {csv: a}\ntrain: {}\ndata: {csv: b}",
        "data: {where: {lang: en, lang: de}}",
    ],
)
def test_a_key_that_stands_twice_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(RecipeError, match=r"(?s)appears twice.*line \d"):
        parse_recipe(text)


def test_a_key_that_stands_twice_is_to_be_named_once() -> None:
    for text, sets in (
        ("", ["data.label_map={a: b, a: c}"]),
        ("", ["data.where={a: [b], a: [c]}"]),
        ("data: {where: {a: b, a: c}}", []),
    ):
        with pytest.raises(RecipeError) as caught:
            parse_recipe(text, sets)
        assert caught.value.todo == "name 'a' once"


@pytest.mark.parametrize(
    "override",
    [
        "data.label_map={pos:neg,neg:",
        "data.where={lang: [en}",
        "data.labels=[a,",
        "data.text_columns=[a",
        "train.epochs={a",
        "data.where.lang=[en",
        "data.label_column={a: b",
        "data.label_column='a",
        "data.text_columns=*a",
    ],
)
def test_what_is_advised_for_a_value_that_is_no_yaml_is_a_value_the_setting_takes(override: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe("", [override])
    assert "put names in double quotes" in caught.value.todo
    key, _, value = override.partition("=")
    takes_many = key not in ("data.label_column", "train.epochs")
    for option in options(caught.value.todo):
        assert option.partition("=")[0] == key
        parse_recipe("data: {label_column: other}", [option])
        assert not (takes_many and value[0] in "{[" and value in option)
    assert bool(options(caught.value.todo)) == (key != "train.epochs")


@pytest.mark.parametrize(
    ("override", "advised"),
    [
        ("data.label_column=null", """--set 'data.label_column="null"'"""),
        ("data.text_columns=x: y", """--set 'data.text_columns="x: y"'"""),
        ("data.text_columns=[x, null]", """--set 'data.text_columns=["x", "null"]'"""),
        ("data.label_map={a: NULL, null: b}", """--set 'data.label_map={"a": "NULL", "NULL": "b"}'"""),
        ("data.where.lang=Null", """--set 'data.where.lang="Null"'"""),
    ],
)
def test_a_name_to_be_put_in_quotes_is_shown_as_a_shell_hands_it_on(override: str, advised: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe("", [override])
    assert advised in caught.value.todo
    assert "put the name in quotes" not in str(caught.value)
    parse_recipe("", options(caught.value.todo))


@pytest.mark.parametrize("override", ["data.label_column=", "data.label_map={pos:neg}", "data.labels=[[a], b]"])
def test_no_name_in_quotes_is_advised_that_nobody_typed(override: str) -> None:
    with pytest.raises(RecipeError, match="put the name in quotes") as caught:
        parse_recipe("", [override])
    assert not options(caught.value.todo)


def test_anchors_and_merges_mean_what_they_mean_in_yaml() -> None:
    text = """
    data:
      where: &where {lang: [en, 010]}
      label_map: {<<: *where, lang: language, other: "x"}
    """
    with pytest.raises(RecipeError, match="label_map"):
        parse_recipe(text.replace("lang: language, ", ""))
    data = parse_recipe(text).data
    assert data.where == {"lang": ("en", "010")}
    assert data.label_map == {"lang": "language", "other": "x"}


PRINTABLE = st.characters(exclude_categories=["Cs"])


@given(names=st.lists(st.text(PRINTABLE, max_size=30), min_size=1, max_size=3, unique=True))
def test_the_set_of_a_message_means_its_names_to_a_shell_and_to_the_recipe(names: list[str]) -> None:
    options = [
        set_option("data.label_column", names[0]),
        set_option("data.label_map", dict.fromkeys(names, names[0])),
        set_option("data.where", {names[-1]: names}),
        set_option("data.csv", names),
    ]
    for option in options:
        assert escaped(option).replace("\\\\", "\\") == option, "what cannot be seen is escaped"
    words = shlex.split(" ".join(options))
    assert words[::2] == ["--set"] * 4
    data = parse_recipe("", [*words[1::2], "data.text_columns=a text"]).data
    assert data.label_column == names[0]
    assert data.label_map == dict.fromkeys(names, names[0])
    assert data.where == {names[-1]: tuple(names)}
    assert data.csv == tuple(names)


def test_a_name_of_any_length_can_be_set() -> None:
    (_, word) = shlex.split(set_option("data.label_map", {"long " * 1000: "x" * 5000}))
    assert parse_recipe("", [word]).data.label_map == {"long " * 1000: "x" * 5000}


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("pos\u200b", "pos\\u200b"),
        ("neg\xa0", "neg\\xa0"),
        ("cafe\u0301", "cafe\\u0301"),
        ("café", "café"),
        ("❤\ufe0f", "❤\\ufe0f"),
        ("a\\b", "a\\\\b"),
        ("正面", "正面"),
        ("\U000e0041", "\\U000e0041"),
        ("\u3164", "\\u3164"),
    ],
)
def test_what_cannot_be_seen_is_shown_as_an_escape(name: str, seen: str) -> None:
    assert escaped(name) == seen


@pytest.mark.parametrize("number", ["5e-5", "5.0e-5", "0.00005", "5E-5", "'5e-5'"])
def test_a_learning_rate_may_be_written_in_any_way(number: str) -> None:
    assert parse_recipe(f"train: {{learning_rate: {number}}}").train.learning_rate == 5e-5
    assert parse_recipe("", [f"train.learning_rate={number}"]).train.learning_rate == 5e-5


@pytest.mark.parametrize("delimiter", [",", ";", "|", "tab", "\\t", "\t", ":", "#", "&", "*", "~", " "])
def test_a_delimiter_may_be_set_as_it_stands(delimiter: str) -> None:
    expected = "\t" if delimiter in ("tab", "\\t") else delimiter
    assert parse_recipe("", [f"data.delimiter={delimiter}"]).data.delimiter == expected


def test_numbers_may_be_names() -> None:
    recipe = parse_recipe("data: {header: false, text_columns: [2, 0], label_column: 1, labels: [0, 1]}")
    assert recipe.data.columns == ("2", "0", "1")
    assert recipe.data.labels == ("0", "1")


def test_one_name_stands_for_a_list_of_one() -> None:
    assert parse_recipe("data: {csv: a.csv, text_columns: body}").data == DataSpec(
        csv=("a.csv",), text_columns=("body",)
    )


@pytest.mark.parametrize(
    "text", ["- a", "a", "3", "a: [", "a: 1\n\tb: 2", "&a [*a]", "a: 2001-13-45", "!!int x", "[" * 9999]
)
def test_what_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match=r"my\.yaml"):
        parse_recipe(text, source="my.yaml")


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "data: {}"])
def test_an_empty_recipe_is_the_defaults(text: str) -> None:
    assert parse_recipe(text) == Recipe()


@given(st.text(max_size=60))
def test_any_text_is_a_recipe_or_refused_in_words(text: str) -> None:
    with contextlib.suppress(RecipeError):
        assert isinstance(parse_recipe(text), Recipe)


@given(st.sampled_from(KEYS), st.text(max_size=20))
def test_any_set_is_taken_or_refused_in_words(key: str, value: str) -> None:
    with contextlib.suppress(RecipeError):
        assert isinstance(parse_recipe("", [f"{key}={value}"]), Recipe)


# --- impossible values and combinations ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "split: {val: 0.5, test: 0.5}",
        "split: {val: 0}",
        "split: {test: 1}",
        "split: {seed: -1}",
        "scale: {workers: 0}",
        "scale: {workers: many}",
        "scale: {workers: true}",
        "scale: {workers: 33}",
        "scale: {cpus_per_worker: 0}",
        "scale: {max_failures: -1}",
        "data: {text_columns: label}",
        "data: {text_columns: []}",
        "data: {text_columns: [a, a]}",
        "data: {header: false}",
        "data: {labels: [a]}",
        "data: {labels: [a, a]}",
        "data: {labels: [a, b], label_map: {x: c}}",
        "data: {delimiter: ab}",
        "data: {delimiter: '\"'}",
        "data: {delimiter: '§'}",
        "data: {encoding: utf-99}",
        "data: {encoding: rot13}",
        "data: {max_reject_fraction: 1.1}",
        "model: {sha256: abc}",
        "model: {dropout: 1}",
        "train: {epochs: 0}",
        "train: {epochs: 1.5}",
        "train: {epochs: true}",
        "train: {weight_decay: no}",
        "split: {seed: on}",
        "train: {learning_rate: 0}",
        "train: {learning_rate: .nan}",
        "train: {learning_rate: .inf}",
        "train: {weight_decay: .inf}",
        "train: {max_grad_norm: .nan}",
        "train: {precision: fp16}",
        "train: {patience: 0}",
        "text: {max_tokens: 7}",
        "text: {unicode_form: NFD}",
        "text: null",
        "text: [1]",
        "serve: {max_texts_per_request: 600}",
        "serve: {min_replicas: 2}",
        "serve: {threads: 0}",
        "serve: {api_key_from: s3cret}",
        "serve: {max_wait_s: .inf}",
        "serve: {cors_origins: '*'}",
        "serve: {cors_origins: https://app.example.com/}",
        "serve: {cors_origins: [https://app.example.com:443]}",
        "serve: {cors_origins: HTTPS://app.example.com}",
    ],
)
def test_what_cannot_be_is_refused_by_its_section(text: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text)
    assert text.split(":")[0] in str(caught.value)
    assert caught.value.todo


def test_infinite_values_cannot_reach_a_fingerprint() -> None:
    for key, default, _ in describe_keys():
        if isinstance(json.loads(default), float):
            with pytest.raises(RecipeError, match=key.split(".")[0]):
                parse_recipe("", [f"{key}=.inf"])


# --- fingerprints ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_every_key_changes_the_fingerprint_and_every_key_but_scale_and_serve_the_learning_fingerprint(key: str) -> None:
    beside = BESIDE.get(key, [])
    before = parse_recipe("", beside)
    after = parse_recipe("", [*beside, f"{key}={OTHER[key]}"])
    assert before.fingerprint != after.fingerprint
    learns_alike = before.learning_fingerprint == after.learning_fingerprint
    assert learns_alike == key.startswith(("report.", "scale.", "serve."))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["report.slices=[channel, text]"], "report.slices names 'text', a column of texts"),
        (["data.pair=[q, a]", "report.slices=a"], "report.slices names 'a', a column of texts"),
        (["data.header=false", "data.text_columns=0", "data.label_column=1", "report.slices=channel"], "0-based"),
    ],
)
def test_slices_are_columns_that_a_report_may_show(overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe("data: {csv: a.csv}", overrides)


def test_a_recipe_without_a_report_section_is_written_as_before() -> None:
    assert "report" not in Recipe().model_dump(mode="json")
    assert parse_recipe("", ["report.texts=true"]).model_dump(mode="json")["report"] == {"slices": [], "texts": True}


def test_the_fingerprint_does_not_depend_on_how_the_recipe_is_written() -> None:
    written = [
        parse_recipe("train: {epochs: 3}\nsplit: {seed: 42}\ndata: {csv: a.csv, where: {x: 1, y: 2}}"),
        parse_recipe("data:\n  where: {y: ['2'], x: ['1']}\n  csv: [a.csv]\n"),
        parse_recipe("", ["data.csv=a.csv", "data.where.y=2", "data.where.x=1"]),
    ]
    assert len({recipe.fingerprint for recipe in written}) == 1
    assert len({recipe.learning_fingerprint for recipe in written}) == 1


# --- the recipes that come along, and the documentation --------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((ROOT / "jobs" / "recipes").glob("*.yaml")), ids=lambda path: path.name)
def test_every_recipe_that_comes_along_parses(path: Path) -> None:
    parse_recipe(path.read_text(encoding="utf-8"), source=path.name)


def test_there_are_recipes_to_parse() -> None:
    assert {path.stem for path in (ROOT / "jobs" / "recipes").glob("*.yaml")} >= {"base", "quickstart"}


def test_every_key_has_its_documentation_and_a_default_that_can_be_written_back() -> None:
    described = list(describe_keys())
    assert [key for key, _, _ in described] == [key for key in keys_of(Recipe) if "." in key]
    for key, default, documentation in described:
        assert documentation.endswith((".", "`")), key
        assert parse_recipe("", [f"{key}={default}"]) == Recipe()


@pytest.mark.parametrize("key", KEYS)
def test_a_recipe_cannot_be_changed(key: str) -> None:
    section, name = key.split(".")
    recipe = Recipe()
    with pytest.raises(ValidationError, match="frozen"):
        setattr(getattr(recipe, section), name, None)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(recipe, section, None)


def test_mappings_of_one_recipe_are_not_those_of_another() -> None:
    Recipe().data.where["x"] = ("y",)
    assert Recipe().data.where == {}


@pytest.mark.parametrize("key", ["data.csv", "model.pretrained"])
def test_a_uri_with_a_password_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(RecipeError, match="a user or a password") as told:
        parse_recipe("", [f"{key}=s3://user:hidden@bucket/x"])
    assert key in str(told.value)
    assert "hidden" not in str(told.value)


def test_workers_may_be_a_range() -> None:
    scale = parse_recipe("data: {csv: a.csv}", ["scale.workers=[2, 8]"]).scale
    assert (scale.workers, scale.max_workers) == ((2, 8), 8)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("[0, 2]", "begins with 1 or more"),
        ("[2, 2]", "ends with a larger number"),
        ("[3, 2]", "ends with a larger number"),
        ("[1, 33]", "more than train.rows_per_step 32"),
        ("[2]", "scale.workers"),
    ],
)
def test_a_range_of_workers_that_is_none_is_refused(value: str, told: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(told)):
        parse_recipe("data: {csv: a.csv}", [f"scale.workers={value}"])


def test_a_delimiter_of_labels_matters_only_where_a_cell_holds_several() -> None:
    settings = ["data.delimiter=,", "data.quoting=none"]
    assert parse_recipe("", settings).data.task_name == "single_label"
    with pytest.raises(RecipeError, match="label_delimiter ',' also divides the columns"):
        parse_recipe("", [*settings, "data.labels_in=cell"])
    assert parse_recipe("", [*settings, "data.labels_in=cell", "data.label_delimiter=;"]).data.label_delimiter == ";"
