"""Explanations as columns of parts: each row has its own, errors included, and a page is made of them again."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from tests.conftest import save_tiny_bundle
from textcls.batch.explanation_rows import COLUMNS, Explaining, explained_rows
from textcls.batch.predict import _first_rows
from textcls.batch.prediction_rows import BlockSize, Columns, prediction_table, read_blocks
from textcls.batch.settings import UnlabelledSpec
from textcls.commands.explain import parser
from textcls.data.csv_records import read_shard
from textcls.data.csv_shards import plan_shards
from textcls.data.input_files import expand
from textcls.data.rows import TextReader
from textcls.errors import InputError
from textcls.inference.classifier import Classifier
from textcls.inference.explain import Method, explain, merged, refuse_unknown
from textcls.reporting.explanation_page import explanation_page
from textcls.tasks.multi_label import MULTI_LABEL
from textcls.text.text_input import TextInput

LABELS = ("bad", "<b>good</b>", "so so")
TEXTS = ["the film was great", "", "电影好看 great", "film " * 100, "a <i>boring</i> \U0001f3ac ending"]


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("csv") / "rows.csv"
    lines = [f'"{text}",note {i}' for i, text in enumerate(TEXTS)]
    path.write_text("\n".join(["text,explanations", *lines]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=["one", "several"])
def classifier(
    request: pytest.FixtureRequest, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Classifier:
    task = MULTI_LABEL if request.param == "several" else None
    directory = tmp_path_factory.mktemp("explained") / request.param
    bundle = save_tiny_bundle(tiny_model_dir, directory, labels=LABELS, task=task)
    return Classifier.load(str(bundle), precision="fp32", threads=1)


def table_of(classifier: Classifier, csv: Path, explaining: Explaining) -> pa.Table:
    data = UnlabelledSpec(csv=(str(csv),))
    ((layout,), (shard,)) = plan_shards(
        expand(data.csv), data, run=lambda function, jobs: [function(*job) for job in jobs]
    )
    (block,) = read_blocks(read_shard(shard, layout, data), TextReader(layout, data), BlockSize(100, 10**6, 10**6))
    columns = Columns.plan([layout.header], classifier.task, classifier.labels, all_scores=False, more=COLUMNS)
    more = explaining.columns(classifier, block.errors, block.inputs)
    scores = classifier.scores(block.inputs)
    return prediction_table(block, scores, columns, more, file=str(csv), file_index=0)


def test_every_row_has_its_own_explanations_or_its_error(classifier: Classifier, csv: Path) -> None:
    table = table_of(classifier, csv, Explaining())
    assert "input_explanations" in table.column_names, "a column of the CSV with our name"
    rows = table.to_pylist()
    assert [row["error"] for row in rows] == [None, "missing_text", None, None, None]
    assert [row["explanations"] is None for row in rows] == [False, True, False, False, False]
    for row, text in zip(rows, TEXTS, strict=True):
        if row["error"] is None:
            assert row["texts"] == [text]
            (expected,) = explain(classifier, [text])
            assert isinstance(expected, list)
            assert [one["label"] for one in row["explanations"]] == [one.label for one in expected]
            for found, one in zip(row["explanations"], expected, strict=True):
                assert found["score"] == pytest.approx(one.score, abs=1e-5)
                assert [word["word"] for word in found["words"]] == [text[w.start : w.end] for w in one.words]
                assert [word["effect"] for word in found["words"]] == pytest.approx(
                    [word.effect for word in one.words], abs=1e-5
                )
    assert rows[3]["explanations"][0]["unseen"][0]["end"] == len(TEXTS[3].rstrip())
    assert {one["rest"] for row in rows for one in row["explanations"] or ()} == {None}, "of gradients alone"


def test_the_page_is_made_of_the_parts(classifier: Classifier, csv: Path) -> None:
    for method in ("leave_one_out", "integrated_gradients"):
        asked = Explaining(method, ("<b>good</b>",))
        rows = list(explained_rows([table_of(classifier, csv, asked)], method))
        assert [row.line for row in rows] == [2, 3, 4, 5, 6]
        assert [row.error for row in rows] == [None, "missing_text", None, None, None]
        assert all(row.explanations[0].method == method for row in rows if row.error is None)
        assert [row.unknown_tokens for row in rows] == [0, 0, 4, 0, 5]
        page = explanation_page(rows, title="Explanations")
        assert "<b>good</b>" not in page
        assert "&lt;b&gt;good&lt;/b&gt;" in page
        assert "<i>boring</i>" not in page


@pytest.mark.parametrize("method", ["leave_one_out", "integrated_gradients"])
@pytest.mark.parametrize("pairs", [False, True], ids=["one text", "pairs"])
def test_parts_and_page_have_the_words_of_the_text_itself_with_placeholders_in_it(
    method: Method, pairs: bool, tiny_model_dir: Path, tmp_path: Path
) -> None:
    # As POST /explain divides it; what it shows as one word is one word here too.
    text, words = "联系a@example.com给[b@example.com]看", ["联", "系", "[EMAIL]", "给", "[", "[EMAIL]", "]", "看"]
    one = TextInput(text, text) if pairs else TextInput(text)
    uri = save_tiny_bundle(tiny_model_dir, tmp_path / "bundle", pairs=pairs, mask=("email",))
    classifier = Classifier.load(str(uri), precision="fp32", threads=1)
    texts, explanations = Explaining(method, ("good",)).columns(classifier, [None], [one])
    (found,) = explanations.to_pylist()[0]
    assert [word["word"] for word in found["words"]] == words * len(one.segments)
    ((expected,),) = explain(classifier, [one], labels=("good",), method=method)
    assert [word["effect"] for word in found["words"]] == pytest.approx([w.effect for w in expected.words], abs=1e-4)
    of_row = {"file": ["a.csv"], "line": [2], "error": [None], "unknown_tokens": [0]}
    table = pa.table(of_row | {"texts": texts, "explanations": explanations})
    (row,) = explained_rows([table], method)
    (shown,) = row.explanations
    by_sign = merged(expected.words, one.segments)
    assert len(shown.words) == len(by_sign) < len(found["words"])
    assert [word.effect for word in shown.words] == pytest.approx([word.effect for word in by_sign], abs=1e-4)
    page = explanation_page([row], title="Explanations")
    assert page.count('<tr><th scope="row"><bdi>[EMAIL]</bdi></th>') == 2 * len(one.segments)


def test_a_masked_name_without_spaces_is_shown_by_itself(tiny_model_dir: Path, tmp_path: Path) -> None:
    text = "请张小明看"
    uri = save_tiny_bundle(tiny_model_dir, tmp_path / "bundle", mask_patterns={"name": "张小明"})
    ((found,),) = explain(Classifier.load(str(uri), precision="fp32", threads=1), [text], labels=("good",))
    all_for = [replace(word, effect=1.0) for word in found.words]
    assert [text[word.start : word.end] for word in merged(all_for, [text])] == ["请", "张小明", "看"]


def test_a_label_that_the_bundle_lacks_is_refused_before_anything_is_read() -> None:
    refuse_unknown(("so so",), LABELS)
    with pytest.raises(InputError, match="the bundle has no label 'best'") as error:
        refuse_unknown(("so so", "best"), LABELS)
    assert error.value.expected == "one of 'bad', '<b>good</b>', 'so so'"
    with pytest.raises(InputError) as many:
        refuse_unknown(("best",), [f"label {i}" for i in range(2500)])
    assert str(many.value.expected).endswith("'label 9', ...")


@pytest.mark.parametrize("rows", [1, 3, 7, 40, 10**6])
def test_the_first_rows_are_those_of_the_first_shards(tmp_path: Path, rows: int) -> None:
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for path in paths:
        path.write_text("text\n" + "".join(f'"film\n{path.stem} {i}"\n' for i in range(20)))
    data = UnlabelledSpec(csv=tuple(map(str, paths)), shard_bytes=64)
    layouts, shards = plan_shards(expand(data.csv), data, run=lambda function, jobs: [function(*job) for job in jobs])
    assert len(shards) == 8
    taken, last = _first_rows(shards, layouts, data, rows)
    assert taken == shards[: len(taken)]
    by_shard = [len(list(read_shard(shard, layouts[shard.file_index], data))) for shard in taken]
    assert sum(by_shard[:-1]) + last == min(rows, 40)
    assert 0 < last <= by_shard[-1]


def test_rows_is_a_number_or_all(capsys: pytest.CaptureFixture[str]) -> None:
    needed = ["--bundle", "b", "--csv", "c", "--out", "o"]
    assert parser().parse_args(needed).rows == 100
    assert parser().parse_args([*needed, "--rows", "all"]).rows is None
    assert parser().parse_args([*needed, "--rows", "7"]).rows == 7
    for wrong in ("0", "-1", "many", "1.5"):
        with pytest.raises(SystemExit):
            parser().parse_args([*needed, "--rows", wrong])
    assert "neither a number of rows nor all" in capsys.readouterr().err
