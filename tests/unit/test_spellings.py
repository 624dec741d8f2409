"""Labels that are one or none, and settings that no row meets: warned of with counts, and the advised command helps."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.unit.reading import Read, options, read, read_as
from textcls.batch.settings import evaluate_settings
from textcls.bundle import Bundle, load_bundle
from textcls.data import checks
from textcls.data.spellings import Spellings, count_into
from textcls.errors import DataError
from textcls.settings.data import DataSpec
from textcls.settings.recipe import SplitSpec
from textcls.settings.recipe_file import parse_recipe
from textcls.settings.yaml_text import set_option
from textcls.tasks.labels import differences, is_blank, is_missing_word, twins
from textcls.tasks.multi_label import MULTI_LABEL
from textcls.tasks.single_label import SINGLE_LABEL


def write(path: Path, labels: list[str], repeat: int = 1, columns: str = "text,label") -> Path:
    """A CSV of a row for each label, as often as asked; a label may hold further cells."""
    rows = [f"text number {i} of {n},{label}" for n in range(repeat) for i, label in enumerate(labels)]
    path.write_text("\n".join([columns, *rows]) + "\n", encoding="utf-8")
    return path


def followed(before: Read, files: list[Path], *overrides: str) -> Read:
    """The same files read again with every --set that the warnings advise."""
    advised = [option for warning in before.warnings for option in options(warning)]
    assert advised, before.warnings
    return read(files, *overrides, *advised)


# (rows by label, the labels that are left once the advice is followed)
TWINS = {
    "a zero-width space": ({"pos": 12, "pos\u200b": 10, "neg": 9}, {"pos": 22, "neg": 9}),
    "a zero-width space in the frequent one": ({"pos": 2, "pos\u200b": 10, "neg": 9}, {"pos": 12, "neg": 9}),
    "NFC and NFD": ({"café": 10, "cafe\u0301": 11, "neg": 9}, {"café": 21, "neg": 9}),
    "a byte order mark": ({"\ufeffpos": 1, "pos": 10, "neg": 9}, {"pos": 11, "neg": 9}),
    "a soft hyphen": ({"posi\u00adtive": 11, "positive": 10, "neg": 9}, {"positive": 21, "neg": 9}),
    "marks of direction": ({"\u202bpos\u202c": 10, "pos": 10, "neg": 9}, {"pos": 20, "neg": 9}),
    "a joiner": ({"pos\u200d": 10, "pos": 3, "neg": 9}, {"pos": 13, "neg": 9}),
    "a variation selector": ({"❤\ufe0f": 10, "❤": 3, "neg": 9}, {"❤\ufe0f": 13, "neg": 9}),
    "a no-break space": ({"neg": 9, "neg\xa0": 1, "pos": 10}, {"neg": 10, "pos": 10}),
    "an ideographic space": ({"so so": 9, "so\u3000so": 11, "pos": 10}, {"so so": 20, "pos": 10}),
    "a run of blanks": ({"so so": 9, "so  so": 11, "pos": 10}, {"so so": 20, "pos": 10}),
    "blanks at both ends and no clean one": ({" neg": 9, "neg ": 2, "pos": 10}, {"neg": 11, "pos": 10}),
    "full width": ({"ｐｏｓ": 3, "pos": 10, "neg": 9}, {"pos": 13, "neg": 9}),
    "half width": ({"ﾖｲ": 3, "ヨイ": 10, "neg": 9}, {"ヨイ": 13, "neg": 9}),
    "equal counts, and one is plain": ({"ｐｏｓ": 4, "Pos": 4, "pos": 4, "neg": 9}, {"pos": 12, "neg": 9}),
    "equal counts, and one is ASCII": ({"don’t": 4, "don't": 4, "do": 9}, {"don't": 8, "do": 9}),
    "equal counts, and one has no blanks": ({"so-so": 4, "so -so": 4, "do": 9}, {"so-so": 8, "do": 9}),
    "equal counts, none clean": ({"ｐｏｓ ": 4, "pos ": 4, "neg": 9}, {"pos": 8, "neg": 9}),
    "a Cyrillic letter": ({"p\u043es": 3, "pos": 10, "neg": 9}, {"pos": 13, "neg": 9}),
    "a Greek letter and case": ({"\u039deg": 3, "pos": 10, "neg": 9, "Neg": 1}, {"pos": 10, "neg": 13}),
    "a Cyrillic letter and no other spelling": ({"p\u043es": 12, "neg": 9}, {"pos": 12, "neg": 9}),
    "case": ({"POS": 3, "Pos": 10, "pos": 4, "neg": 9}, {"Pos": 17, "neg": 9}),
    "an apostrophe": ({"don't": 10, "don’t": 3, "do": 9}, {"don't": 13, "do": 9}),
    "a dash": ({"x-1": 10, "x–1": 3, "do": 9}, {"x-1": 13, "do": 9}),
    "numbers": ({"0": 10, "0.0": 11, "1": 9, "1.0": 3, "+1": 2, "01": 1}, {"0": 21, "1": 15}),
    "numbers with places": ({"0.50": 3, "0.5": 10, "5e-1": 1, "1": 9}, {"0.5": 14, "1": 9}),
    "a minus": ({"-1": 10, "\u22121": 11, "1": 9}, {"-1": 21, "1": 9}),
    "one dirty label alone": ({"neg\xa0": 9, "pos": 10}, {"neg": 9, "pos": 10}),
    "two groups at once": ({"neg": 9, "Neg": 1, "pos": 10, "pos ": 3}, {"neg": 10, "pos": 13}),
    "signs of YAML and of the shell": ({"a: 'b' #1": 9, "A: 'b' #1": 1, "pos": 10}, {"a: 'b' #1": 10, "pos": 10}),
}


@pytest.mark.parametrize("kind", TWINS)
def test_labels_that_are_one_are_told_with_a_command_that_makes_them_one(kind: str, tmp_path: Path) -> None:
    counts, expected = TWINS[kind]
    path = write(tmp_path / "a.csv", [label for label, rows in counts.items() for _ in range(rows)])
    before = read([path])
    assert before.found.labels == counts
    spelled = "".join(before.warnings)
    for label, rows in counts.items():
        if label not in expected:
            assert f"({rows} row" in spelled, "with its rows"
    assert spelled.isprintable(), "what cannot be seen is escaped"
    after = followed(before, [path])
    assert after.found.labels == expected
    assert after.found.read == before.found.read
    assert after.warnings == []


def test_labels_that_are_equal_as_numbers_in_two_files_get_one_command(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.csv", ["0", "1"], 25), write(tmp_path / "b.csv", ["0.0", "1.0"], 30)]
    before = read(files)
    assert sum(len(options(warning)) for warning in before.warnings) == 1
    assert followed(before, files).found.labels == {"0": 55, "1": 55}


def test_advice_keeps_what_the_label_map_does_already(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ["0", "1", "neutral", "Neutral"], 10)
    given = 'data.label_map={"0": negative, "1": Positive}'
    after = followed(read([path], given), [path], given)
    assert after.found.labels == {"negative": 10, "Positive": 10, "neutral": 20}
    path = write(tmp_path / "b.csv", ["0", "negative", "negative", "negative", "1"], 10)
    given = 'data.label_map={"0": Negative, "1": positive}'
    assert followed(read([path], given), [path], given).found.labels == {"negative": 40, "positive": 10}


def test_a_label_that_a_key_of_the_label_map_means_is_told(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.csv", ["0", "1"], 25), write(tmp_path / "b.csv", ["0.0", "1.0"], 30)]
    given = 'data.label_map={"0": negative, "1": positive}'
    before = read(files, given)
    assert "'0.0' (30 rows) may be '0', which data.label_map maps to 'negative'" in before.warnings[0]
    after = followed(before, files, given)
    assert (after.found.labels, after.warnings) == ({"negative": 55, "positive": 55}, [])


def test_labels_that_were_told_apart_on_purpose_are_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ["us", "US", "None"], 10)
    assert read([path], "data.labels=[us, US, None]").warnings == []
    assert read([path], "data.label_map={us: we, US: America, None: nobody}").warnings == []


@pytest.mark.parametrize("words", [["nan", "None", "#N/A", "null"], ["-", "?", "N/A", "\\N"], ["NULL", "<NA>", "n.a."]])
def test_words_for_a_missing_label_are_told_with_a_command_that_leaves_them_out(words, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ["pos", "neg", *words], 12)
    before = read([path])
    (warning,) = before.warnings
    assert "look like missing values" in warning
    assert "(12 rows)" in warning
    (option,) = options(warning)
    after = read([path], option)
    assert after.found.labels == {"pos": 12, "neg": 12}
    assert (after.found.rejects, after.found.outside_where) == (0, 12 * len(words))
    assert after.warnings == []
    # A real class of that name is kept by naming all labels, as the sentence says.
    labels = ["pos", "neg", *words]
    kept = read([path], *options(set_option("data.labels", labels)))
    assert (kept.found.labels, kept.warnings) == (dict.fromkeys(labels, 12), [])


def test_missing_labels_are_left_out_beside_what_is_left_out_already(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ["pos,a", "neg,a", "nan,a", "pos,b", "old,a"], 12, "text,label,source")
    given = "data.where_not={source: b, label: [old, gone]}"
    before = read([path], given)
    assert "data.where_not: no row has 'label' 'gone'" in before.warnings[0]
    after = followed(before, [path], given)
    assert (after.found.labels, after.found.outside_where) == ({"pos": 12, "neg": 12}, 36)


def test_a_label_of_which_nothing_is_seen_is_a_missing_one(tmp_path: Path) -> None:
    for blank in ("\u200b", "\ufeff \u200d", "\u3164", "\xa0"):
        assert is_blank(blank)
        assert read([write(tmp_path / "a.csv", [blank])]).found.reasons == {"missing_label": 1}
    assert not is_blank("-")


@pytest.mark.parametrize(
    ("csv", "label_map", "advised"),
    [
        (["010", "020"], "{10: ten, 020: twenty}", {"010": "ten", "020": "twenty"}),
        (["negative", "pos"], "{negativ: bad, pos: good}", {"negative": "bad", "pos": "good"}),
        (["neg\xa0", "pos"], "{neg: bad, pos: good}", {"neg\xa0": "bad", "pos": "good"}),
    ],
)
def test_a_key_of_the_label_map_that_meets_no_row_is_told_with_the_nearest_label(
    csv: list[str], label_map: str, advised: dict[str, str], tmp_path: Path
) -> None:
    path = write(tmp_path / "a.csv", csv, 12)
    before = read([path], f"data.label_map={label_map}")
    assert before.warnings[0].startswith("data.label_map: no row has the label ")
    assert "12 have '" in before.warnings[0]
    after = followed(before, [path])
    assert (after.data.label_map, after.warnings) == (advised, [])
    assert set(after.found.labels) == set(advised.values())


def test_a_key_that_nothing_is_near_to_is_told_without_advice(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ["1", "2"], 12)
    (warning,) = read([path], "data.label_map={1: one, 3: three}").warnings
    assert warning == "data.label_map: no row has the label '3'"


def test_keys_of_the_label_map_that_all_meet_rows_are_not_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ["010", "1.10", "+5", "12:30"], 12)
    after = read([path], "data.label_map={010: ten, 1.10: new, +5: five, 12:30 : noon}")
    assert (set(after.found.labels), after.warnings) == ({"ten", "new", "five", "noon"}, [])


@pytest.mark.parametrize("setting", ["where", "where_not"])
def test_a_value_of_a_filter_that_meets_no_row_is_told_with_the_nearest_cell(setting: str, tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv", ["pos,rotten_tomatoes", "neg,rotten_tomatoes", "pos,imdb"], 12, "text,label,source"
    )
    before = read([path], f"data.{setting}={{source: [rotten-tomatoes, imdb]}}")
    assert before.warnings[0] == f"data.{setting}: no row has 'source' 'rotten-tomatoes'; 24 have 'rotten_tomatoes'"
    after = followed(before, [path])
    assert after.warnings == []
    assert set(getattr(after.data, setting)["source"]) == {"rotten_tomatoes", "imdb"}


def test_a_filter_that_no_row_passes_is_told_with_what_the_column_holds(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ["pos,IMDB", "neg,IMDB", "pos,yelp"], 12, "text,label,source")
    with pytest.raises(DataError) as caught:
        read([path], "data.where={source: imdb}").refuse_unfit()
    assert "source has 'IMDB' (24 rows), 'yelp' (12 rows)" in caught.value.expected
    after = read([path], *options(caught.value.todo))
    after.refuse_unfit()
    assert after.found.read == 24
    with pytest.raises(DataError) as caught:
        read([path], "data.where={source: 7}").refuse_unfit()
    after = read([path], *options(caught.value.todo))
    after.refuse_unfit()
    assert after.found.read == 36


def test_labels_that_are_not_among_those_asked_for_are_told_with_what_helps(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ["Pos", "neg ", "pos"], 12)
    asked = "data.labels=[pos, neg]"
    with pytest.raises(DataError) as caught:
        read([path], asked).refuse_unfit()
    first, *_ = options(caught.value.todo)
    after = read([path], asked, first)
    after.refuse_unfit()
    assert after.found.labels == {"pos": 24, "neg": 12}

    path = write(tmp_path / "b.csv", ["pos", "neg", "gut", "#1"], 12)
    with pytest.raises(DataError) as caught:
        read([path], asked).refuse_unfit()
    assert "'gut', '#1'" in caught.value.todo
    for option in options(caught.value.todo):  # leaving them out, or going on without them
        after = read([path], asked, option)
        after.refuse_unfit()
        assert after.found.labels == {"pos": 12, "neg": 12}


def evaluated(bundle: Bundle, path: Path, *settings: str) -> Read:
    """The rows that an evaluation with these settings reads.

    Raises:
        DataError: too many rows are rejects.
    """
    found = read_as(evaluate_settings(bundle, [str(path)], settings).data, [path])
    found.refuse_unfit()
    return found


def test_labels_that_a_bundle_does_not_know_come_with_the_map_or_the_filter_that_helps(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    bundle = load_bundle(str(tiny_bundle))
    path = write(tmp_path / "a.csv", ["Bad", "good ", "so\u00a0so", "good"], 12)

    def attempt(*settings: str) -> Read:
        return evaluated(bundle, path, *settings)

    with pytest.raises(DataError) as caught:
        attempt()
    first, *_ = options(caught.value.todo)
    assert attempt(first).found.labels == {"bad": 12, "good": 24, "so so": 12}

    write(path, ["bad", "good", "2", "#N/A"], 12)
    with pytest.raises(DataError) as caught:
        attempt()
    assert "'2', '#N/A' to 'bad', 'good', 'so so' with data.label_map" in caught.value.todo
    for option in options(caught.value.todo):
        assert attempt(option).found.labels == {"bad": 12, "good": 12}


def test_where_a_bundle_knows_no_label_only_a_map_is_advised(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = load_bundle(str(tiny_bundle))
    path = write(tmp_path / "a.csv", ["pos", "neg"], 12)

    with pytest.raises(DataError) as caught:
        evaluated(bundle, path)
    assert "where_not" not in caught.value.todo
    (option,) = options(caught.value.todo)
    assert option == 'data.label_map={"pos": "LABEL", "neg": "LABEL"}'
    assert "each LABEL must be one of 'bad', 'good', 'so so'" in caught.value.todo
    chosen = option.replace("LABEL", "good", 1).replace("LABEL", "bad")
    assert evaluated(bundle, path, chosen).found.labels == {"good": 12, "bad": 12}


def test_a_letter_of_another_script_is_named_and_other_scripts_are_left_alone(tmp_path: Path) -> None:
    (first, *_) = read([write(tmp_path / "a.csv", ["p\u043es", "neg"], 12)]).warnings
    assert "CYRILLIC SMALL LETTER O (U+043E) among Latin letters; it may be 'pos'" in first
    own = ["\u0445\u043e\u0440", "\u0391\u0392", "\u03bcm", "\u0394T", "caf\u00e9", "\u043e", "\u043f\u043exo"]
    assert read([write(tmp_path / "b.csv", own, 12)]).warnings == []
    mapped = read([tmp_path / "a.csv"], "data.label_map={x: p\u043es}")
    assert not any("CYRILLIC" in warning for warning in mapped.warnings)


def test_a_dry_run_speaks_of_no_file_that_it_does_not_write(tmp_path: Path) -> None:
    found: dict[str, Any] = {"read": 9, "outside_where": 0, "reasons": {"ragged_row": 4}, "examples": []}
    for listed in (True, False):
        with pytest.raises(DataError) as caught:
            checks.refuse_unfit(DataSpec(), labels=["a", "b"], listed=listed, **found)
        assert ("rejects.parquet" in str(caught.value)) == listed


def test_few_rows_with_another_spelling_of_a_label_that_was_asked_for_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ["pos", "neg"] * 200 + ["Pos"])
    asked = "data.labels=[pos, neg]"
    before = read([path], asked)
    assert before.warnings[0] == "label 'Pos' (1 row) is not among the labels; it may be 'pos'"
    after = followed(before, [path], asked)
    assert (after.found.labels, after.found.rejects, after.warnings) == ({"pos": 201, "neg": 200}, 0, [])


@pytest.mark.parametrize("settings", [[], ["data.labels=[abstain, pos]"], ["data.label_map={keep: abstain}"]])
def test_a_label_called_abstain_is_refused_where_the_classifier_may_abstain(
    settings: list[str], tmp_path: Path
) -> None:
    path = write(tmp_path / "a.csv", ["pos", "keep" if "keep" in "".join(settings) else "abstain"], 12)
    before = read([path], *settings)
    checks.refuse_reserved(before.data, SINGLE_LABEL, list(before.found.labels), None)
    with pytest.raises(DataError, match="abstain") as caught:
        checks.refuse_reserved(before.data, SINGLE_LABEL, list(before.found.labels), 0.9)
    *renamed, always = options(caught.value.todo)
    after = read([path], *settings, *renamed)
    checks.refuse_reserved(after.data, SINGLE_LABEL, list(after.found.labels), 0.9)
    assert (after.found.labels, after.found.rejects) == ({"pos": 12, "label abstain": 12}, 0)
    assert parse_recipe("calibration: {min_precision: 0.9}", [always]).calibration.min_precision is None


@pytest.mark.parametrize(
    ("names", "min_precision", "refused"),
    [
        (("no label", "pos"), None, ["no label"]),
        (("abstain", "pos"), None, []),
        (("abstain", "pos"), 0.9, ["abstain"]),
        (("abstain", "label abstain", "no label"), 0.9, ["no label", "abstain"]),
    ],
)
def test_a_label_called_as_an_answer_of_several_labels_is_refused_and_can_be_renamed(
    names: tuple[str, ...], min_precision: float | None, refused: list[str]
) -> None:
    data = DataSpec(labels_in="cell", labels=names)
    if not refused:
        checks.refuse_reserved(data, MULTI_LABEL, names, min_precision)
        return
    with pytest.raises(DataError, match=" and a label ".join(f"has the name '{name}'.*" for name in refused)) as caught:
        checks.refuse_reserved(data, MULTI_LABEL, names, min_precision)
    renamed = parse_recipe("data: {labels_in: cell}", options(caught.value.todo.partition("; or")[0])).data
    assert renamed.labels is not None
    assert len(set(renamed.labels)) == len(names)
    checks.refuse_reserved(renamed, MULTI_LABEL, renamed.labels, min_precision)
    read_label = MULTI_LABEL.label_reader(renamed)((",".join(names),))
    assert sorted(MULTI_LABEL.names_in(read_label.label)) == sorted(renamed.labels)
    checks.refuse_reserved(data, SINGLE_LABEL, names, None)  # of one label a row these are names like others


def test_a_label_without_training_rows_can_be_left_out_as_advised(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ["pos", "neg", "1"], 12)
    for settings, labels in (
        ([], ["1", "neg", "pos"]),
        (["data.label_map={1: rare}", "data.labels=[neg, pos, rare]"], ["neg", "pos", "rare"]),
    ):
        before = read([path], *settings)
        empty = next(label for label in labels if label in ("1", "rare"))
        counts = {"train": [0 if label == empty else 8 for label in labels]}
        with pytest.raises(DataError, match="no training rows") as caught:
            checks.refuse_empty_splits(before.data, SplitSpec(), labels, counts)
        after = read([path], *settings, *options(caught.value.todo))
        assert (after.found.labels, after.found.rejects) == ({"pos": 12, "neg": 12}, 0)


def test_words_say_in_what_two_labels_differ() -> None:
    assert differences(["pos", "POS"]) == "case"
    assert differences(["pos", "pos\u200b"]) == "invisible characters"
    assert differences(["café", "cafe\u0301"]) == "Unicode form or width"
    assert differences(["1", "1.0"]) == "the way a number is written"
    assert differences(["x-1", "X–1 "]) == "dashes or quotation marks and case and blanks"


def test_other_labels_are_left_alone() -> None:
    assert (
        twins({"pos": 1, "neg": 2, "1": 3, "2": 4, "1.5": 5, "a-b": 6, "a b": 7, "می‌خواهم": 8, "👩‍💻": 9, "x²": 1}, {})
        == []
    )
    assert not any(map(is_missing_word, ["pos", "0", "no", "nano", "other", "no label", "nothing"]))


def test_of_a_column_of_many_cells_the_named_ones_are_counted_and_few_others() -> None:
    cells = Counter({"named": 0})
    for i in range(5000):
        count_into(cells, str(i))
        count_into(cells, "named")
    count_into(cells, "long" * 1000)
    assert len(cells) == 1000
    assert cells["named"] == 5000
    total = Spellings({"source": Counter({"a": 1})}, Counter({"x": 0}))
    total.add(Spellings({"source": Counter({"a": 2, "b": 0})}, Counter({"x": 3})))
    assert total == Spellings({"source": Counter({"a": 3, "b": 0})}, Counter({"x": 3}))


def test_labels_that_are_not_the_bundle_s_can_be_left_out_of_rows_that_have_several(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "one,a;b\ntwo,b;new\nthree,new\nfour,a;other\n" * 5)
    settings = ["data.labels_in=cell", "data.label_delimiter=;"]
    data = parse_recipe("", [*settings, "data.labels=[a, b]"]).data
    found = read_as(data, [path])
    with pytest.raises(DataError) as caught:
        found.refuse_unfit()
    advice = options(caught.value.todo)[0]
    left = read_as(parse_recipe("", [*settings, "data.labels=[a, b]", advice]).data, [path])
    assert (left.found.rows, left.found.labels, left.found.rejects) == (20, {"a": 10, "b": 10}, 0)


def test_a_label_without_training_rows_can_be_left_out_of_cells_as_advised() -> None:
    data = parse_recipe("", ["data.labels_in=cell"]).data
    with pytest.raises(DataError) as caught:
        checks.refuse_empty_splits(data, SplitSpec(), ["a", "b"], {"train": [5, 0], "val": [1, 1], "test": [1, 1]})
    assert parse_recipe("", ["data.labels_in=cell", *options(caught.value.todo)]).data.label_map == {"b": ""}


def test_words_for_a_missing_label_can_be_dropped_from_cells_as_advised(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "one,a;b\ntwo,none\nthree,b;none\n" * 4)
    settings = ["data.labels_in=cell", "data.label_delimiter=;"]
    (warning,) = read([path], *settings).warnings
    left = read([path], *settings, *options(warning))
    assert (left.found.rows, left.found.labels, left.warnings) == (12, {"a": 4, "b": 8}, [])
