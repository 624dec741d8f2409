"""What is written for people is masked where it is quoted: cells, labels, texts, words, messages and errors."""

import csv
import io
import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

from tests.conftest import save_tiny_bundle
from tests.identifiers import AS_OPTIONS, EVERY, identifiers, traces
from textcls.audit.evidence import nearly_same, sheet_rows
from textcls.audit.held_out import EmbeddedRows
from textcls.audit.ranking import audited, ranked
from textcls.audit.sheet import sheet
from textcls.batch import actor_pool
from textcls.batch.actor_pool import PoolSize
from textcls.batch.explanation_rows import Explaining
from textcls.batch.prediction_rows import Columns, RowBlock, prediction_table
from textcls.batch.to_label import candidates
from textcls.commands import predict as predict_command
from textcls.data import checks, read, row_tokens
from textcls.data.csv_layout import Layout
from textcls.data.csv_records import Shard
from textcls.data.csv_shards import plan_shards
from textcls.data.decisions import row_mark
from textcls.data.input_files import expand
from textcls.data.masked_messages import MessageMask, masked_errors, masked_messages
from textcls.data.remedies import CsvFiles, remedy
from textcls.data.row_tables import read_tables, row_id, summarize
from textcls.data.rows import CleanRow, Reason, Reject, RowCleaner
from textcls.errors import DataError, InputError
from textcls.inference.classifier import Classifier
from textcls.masking.pseudonyms import PseudonymKey
from textcls.settings.data import DataSpec
from textcls.settings.recipe import TextSpec
from textcls.settings.recipe_file import parse_recipe
from textcls.tasks.registry import task_of
from textcls.tasks.single_label import SINGLE_LABEL
from textcls.text.masks import MaskKind, masker_of
from textcls.text.normalizer import normalizer_of
from textcls.text.text_input import TextInput
from textcls.text.tokenizer_files import TokenizerFiles

PLANTED = identifiers(48)
VALUES = [value for _, value in PLANTED]
HEADED = Layout(",", 3, (1, 2), 1, header=("id", "text", "label"))


def leaks(content: object) -> list[str]:
    """The identifiers that a content holds."""
    found = (content if isinstance(content, bytes) else repr(content).encode()).lower()
    return [value for value in VALUES if any(trace.lower() in found for trace in traces(value))]


def outcome(fields: list[str], text: TextSpec = EVERY, **data: Any) -> Any:
    spec = DataSpec(**data)
    return RowCleaner(HEADED, spec, text, task_of(spec))(7, fields)


def test_the_options_of_the_tests_are_their_settings() -> None:
    assert parse_recipe("", AS_OPTIONS).text.mask_patterns == EVERY.mask_patterns
    assert leaks([f"x{VALUES[3]}x"]) == [VALUES[3]]
    assert all(value not in masker_of(EVERY)(f"a {value} b") for value in VALUES)


# --- rejects ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "value"), PLANTED, ids=lambda one: str(one)[:12])
def test_a_reject_quotes_its_cell_masked(kind: str, value: str) -> None:
    of_label = outcome(["1", "a text", f"x {value} y"], labels=["good", "bad"])
    assert of_label == Reject(7, "label", Reason.UNKNOWN_LABEL, f"x [{kind.upper()}] y")
    no_text = outcome(["1", f"caf\udce9 {value}", "good"])
    assert (no_text.reason, no_text.value) == (Reason.UNDECODABLE, rf"caf\xe9 [{kind.upper()}]")
    total = outcome(["Total", "", value])
    assert leaks(total) == []


@pytest.mark.parametrize("before", range(100, 121, 4))
def test_no_part_of_an_identifier_is_left_where_a_cell_is_cut(before: int) -> None:
    cell = outcome(["1", "a text", "x" * before + " someone.with.a.name@example.com"], labels=["a", "b"]).value
    assert "someone" not in cell
    assert len(cell) <= 120


def test_a_second_header_is_told_without_the_cells_that_are_none() -> None:
    layout = Layout(",", 3, (1, 2), 1, header=("id", "text", "label"), uri="a.csv")
    cleaner = RowCleaner(layout, DataSpec(), EVERY, SINGLE_LABEL)
    with pytest.raises(DataError, match="in another order") as refused:
        cleaner(9, [VALUES[0], "label", "text"])
    assert leaks(str(refused.value)) == []


# --- labels -----------------------------------------------------------------------------------------------------------


def test_a_label_that_is_an_identifier_is_a_reject_unless_the_settings_name_it() -> None:
    found = outcome(["1", "a text", "x@example.com"])
    assert found == Reject(7, "label", Reason.PERSONAL_LABEL, "[EMAIL]")
    assert outcome(["1", "a text", "x@example.com"], text=TextSpec()).label == "x@example.com"
    assert isinstance(outcome(["1", "a text", "x@example.com"], label_map={"x@example.com": "a"}), CleanRow)
    assert isinstance(outcome(["1", "a text", "x@example.com"], labels=["x@example.com", "b"]), CleanRow)
    several = outcome(["1", "a text", "a; x@example.com"], labels_in="cell", label_delimiter=";")
    assert (several.reason, several.value) == (Reason.PERSONAL_LABEL, "a; [EMAIL]")


def test_advice_on_labels_that_are_identifiers_is_to_list_them_and_names_none(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "".join(f"text {i},code {i % 2}12345\n" for i in range(8)))
    data = DataSpec(csv=(str(path),))
    advised = remedy(Reason.PERSONAL_LABEL, CsvFiles.whole(expand(data.csv), data))
    assert "list every label in data.labels" in advised
    layout = Layout(",", 2, (0, 1), 1)
    for labels, kind in ((None, Reject), (("code 012345", "code 112345"), CleanRow)):
        cleaner = RowCleaner(layout, data.model_copy(update={"labels": labels}), EVERY, SINGLE_LABEL)
        assert isinstance(cleaner(2, ["text 0", "code 012345"]), kind)


def test_advice_on_cells_of_label_columns_names_no_identifier(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,a,b\n" + "".join(f"text {i},1,0\n" for i in range(9)) + "text,x@example.com,0\n")
    data = DataSpec(csv=(str(path),), label_columns=("a", "b"))
    files = replace(CsvFiles.whole(expand(data.csv), data), mask=masker_of(EVERY))
    advised = remedy(Reason.NOT_YES_OR_NO, files, [(0, 11)])
    assert "[email]" in advised
    assert "example" not in advised


def test_no_message_about_spellings_names_an_identifier(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [["text", "label", "from"], *([f"text {i}", VALUES[i], VALUES[-i]] for i in range(20))]
        )
    for given in ({"labels": ["good", "bad"]}, {"label_map": {"ok": "good"}}, {"where": {"from": ["someone"]}}):
        data = DataSpec(csv=(str(path),), **given)
        layouts, (shard,) = plan_shards(expand(data.csv), data)
        summary = summarize(pa.concat_tables(read_tables(shard, layouts[0], data, EVERY, SINGLE_LABEL)), SINGLE_LABEL)
        assert leaks(summary) == []
        with pytest.raises(DataError) as refused:
            checks.refuse_unfit(
                data,
                read=summary.read,
                outside_where=summary.outside_where,
                reasons=summary.reasons,
                examples=[],
                labels=data.labels or tuple(summary.labels),
                spellings=summary.spellings,
                label_rows=summary.labels,
            )
        assert leaks(str(refused.value)) == []


# --- texts ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def classifier(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    bundle = save_tiny_bundle(
        tiny_model_dir, tmp_path_factory.mktemp("masks") / "b", mask=EVERY.mask, mask_patterns=EVERY.mask_patterns
    )
    return Classifier.load(str(bundle), precision="fp32", threads=1)


def test_predictions_explanations_and_rows_to_label_hold_masked_texts(classifier: Classifier) -> None:
    texts = [f"the film of {value} was great" for value in VALUES]
    block = RowBlock(
        lines=list(range(len(texts))),
        rows=[[text, f"from {text}"] for text in texts],
        errors=[None] * len(texts),
        inputs=[TextInput(text) for text in texts],
    )
    scores, mask = classifier.scores(block.inputs), masker_of(EVERY)
    more = Explaining().columns(classifier, block.errors, block.inputs)
    assert leaks([one.to_pylist() for one in more]) == []
    assert "[EMAIL]" in more[0].to_pylist()[0][0]
    columns = Columns.plan([["text", "note"]], SINGLE_LABEL, classifier.labels, all_scores=True)
    plain = prediction_table(block, scores, columns, file="a.csv", file_index=0)
    masked = prediction_table(block, scores, columns, file="a.csv", file_index=0, mask=mask)
    assert leaks(plain.to_pylist()) == VALUES, "as the input has them, unless they are to be masked"
    assert leaks(masked.to_pylist()) == []
    assert plain.drop_columns(["text", "note"]) == masked.drop_columns(["text", "note"])
    normalize, place = normalizer_of(EVERY), {"file": "a.csv", "file_index": 0}
    found = candidates(block, scores, classifier.thresholds, normalize, **place, mask=mask)
    assert leaks(found.to_pylist()) == []


def test_columns_are_masked_only_with_a_bundle_that_masks(classifier: Classifier, tiny_bundle: Path) -> None:
    def attempt(bundle: str, *more: str) -> None:
        words = ["--bundle", bundle, "--csv", "none.csv", "--out", "out", *more]
        predict_command._run(predict_command.parser().parse_args(words), 0.0)

    with pytest.raises(InputError, match="masks nothing") as refused:
        attempt(str(tiny_bundle), "--mask-columns")
    assert "or leave --mask-columns out" in refused.value.todo
    for bundle, more in ((str(tiny_bundle), []), (classifier.bundle.uri, ["--mask-columns"])):
        with pytest.raises(DataError, match=r"none\.csv: no such file"):
            attempt(bundle, *more)


def test_an_audit_shows_masked_texts_and_marks_the_rows_of_the_csv() -> None:
    texts = [f"a film of {value}" for value in VALUES]
    ids = np.array([row_id(0, line) for line in range(len(texts))])
    targets, folds = np.arange(len(texts)) % 2, np.arange(len(texts)) % 3
    names, flat = ("bad", "good"), np.full((len(texts), 2), 0.5)
    rows = ranked(audited(SINGLE_LABEL, names, ids, flat, targets, folds))
    embeddings = np.random.default_rng(0).normal(size=(len(texts), 4)).astype(np.float32)
    near = EmbeddedRows(ids, folds, np.zeros(len(texts)), embeddings, [TextInput(text) for text in texts])
    read: Any = SimpleNamespace(files=["a.csv"], location=lambda one: f"a.csv:{one}")
    found = list(sheet_rows(rows, rows, near, nearly_same(near, rows, EVERY, ()), [], read, EVERY))
    content = sheet(found)
    assert leaks(content) == []
    marks = {row_mark(TextInput(text), names[i % 2]) for i, text in enumerate(texts)}
    assert {line["row"] for line in csv.DictReader(io.StringIO(content.decode(), newline=""))} == marks


# --- messages and errors ----------------------------------------------------------------------------------------------


def test_messages_are_masked_and_places_counts_and_advice_stay() -> None:
    mask = MessageMask(EVERY, ["runs/13800001234/x", "s3://bucket/123456/*.csv"])
    assert mask("read 123456 rows of runs/13800001234/x:123456") == "read 123456 rows of runs/13800001234/x:123456"
    assert mask("s3://bucket/123456/a.csv:7") == "s3://bucket/123456/a.csv:7"
    assert mask("the header has '123456', 'x@example.com'") == "the header has '[NUMBER]', '[EMAIL]'"
    assert mask("--set data.label_map='{\"123456\": a}'") == "--set data.label_map='{\"123456\": a}'"
    assert mask("like x@example.com and 13800001234") == "like [EMAIL] and [CN_MOBILE]"
    said: list[str] = []
    with masked_messages(EVERY, said.append) as say:
        say("from x@example.com")
    with masked_messages(TextSpec(), said.append) as say:
        say("from x@example.com")
    assert said == ["from [EMAIL]", "from x@example.com"]


def test_own_patterns_leave_the_figures_and_the_advice_of_a_job_and_mask_what_is_quoted() -> None:
    mask = MessageMask(TextSpec(mask_patterns={"a": "5", "any": r"\d{2,}", "staff": r"E\d{6}"}))
    own = "tokens a row: 50% have at most 15, 95% 1,250; 5 of 555 rows; --set train.rows_per_step=55"
    assert mask(own) == own
    assert mask("rejected 5: bad label, like '5' in line 25") == "rejected 5: bad label, like '[A]' in line 25"
    assert mask("no number: E123456") == "no number: [STAFF]"


@pytest.mark.parametrize("error", [ValueError, KeyError, RuntimeError, DataError, OSError])
def test_errors_are_masked_with_their_causes_and_keep_their_class(error: Any) -> None:
    cause = TypeError("about x@example.com")
    with pytest.raises(error) as raised, masked_errors(EVERY):
        raise error("found y@example.com") from cause
    assert "[EMAIL]" in str(raised.value)
    assert "[EMAIL]" in str(raised.value.__cause__)
    assert leaks([str(raised.value), repr(raised.value.__cause__)]) == []
    if error is DataError:
        assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_an_error_in_a_task_of_ray_is_masked_before_ray_can_log_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise ValueError("cannot handle 'x@example.com'")
        yield

    actor = actor_pool._ScoringActor("bundle", SINGLE_LABEL, EVERY, PoolSize(1, False, 1, 0), "")
    actor._classifier = cast(Classifier, object())
    (tmp_path / "a.csv").write_text("id,text,label\nlabel,text,x@example.com\n")
    reordered = Layout(",", 3, (1, 2), 1, header=("id", "text", "label"))
    shard: Any = ({"id": np.array([0])}, [Shard(str(tmp_path / "a.csv"), 0)], [reordered], DataSpec(), EVERY)
    monkeypatch.setattr(row_tokens, "tokenized", lambda *_: next(fails()))
    for task in (
        lambda: list(actor.run(fails, None)),
        lambda: read._tokenized(pa.table({}), cast(TokenizerFiles, None), EVERY),
        lambda: list(read._read_shard(*shard, SINGLE_LABEL, "none", (), None)),
    ):
        with pytest.raises((ValueError, DataError), match=r"\[EMAIL\]") as raised:
            task()
        assert "x@example" not in str(raised.value)


def test_the_model_reads_a_masked_text_as_it_reads_the_text_itself(classifier: Classifier) -> None:
    texts = [
        f"the film{before}{value}{after} was great" for value in VALUES for before, after in ((" ", ","), ("，", "。"))
    ]
    mask = masker_of(EVERY)
    plain, masked = classifier.scores(texts), classifier.scores([mask(text) for text in texts])
    assert np.abs(plain.probabilities - masked.probabilities).max() < 1e-6
    assert plain.tokens.tolist() == masked.tokens.tolist()
    key = PseudonymKey(bytes(range(32)))

    def pseudonym(kind: MaskKind, value: str) -> str:
        return f"{kind.placeholder[:-1]}:{key.pseudonym(kind.name, value)}]"

    keyed = classifier.scores([mask.replaced(text, pseudonym) for text in texts])
    assert np.abs(plain.probabilities - keyed.probabilities).max() < 1e-6
