"""Tokens that the vocabulary lacks are counted wherever token ids are made: rows, scores, reports."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.conftest import save_tiny_bundle
from textcls.data import checks, row_tokens
from textcls.data.summary import RowSummary
from textcls.inference.classifier import Classifier
from textcls.settings.data import DataSpec
from textcls.settings.recipe import TextSpec
from textcls.text.text_input import TextInput
from textcls.text.tokenizer import InputTokenizer
from textcls.text.tokenizer_files import TokenizerFiles, prepare_tokenizer

TEXTS = ["great film", "great ☃ film", "☃ ☃", "☃ " * 300]


def files_of(model: object, **parts: object) -> TokenizerFiles:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = parts.get("pre_tokenizer") or pre_tokenizers.Whitespace()
    return TokenizerFiles(tokenizer.to_str(), "{}", 16, 0)


BYTES = {char: i for i, char in enumerate(pre_tokenizers.ByteLevel.alphabet())}


@pytest.mark.parametrize(
    ("files", "unknown"),
    [
        (files_of(models.WordPiece({"[UNK]": 0, "film": 1}, unk_token="[UNK]")), 2),
        (files_of(models.WordLevel({"film": 0, "[UNK]": 1}, unk_token="[UNK]")), 2),
        (files_of(models.Unigram([("<unk>", 0.0), ("film", -1.0)], 0, False)), 2),
        (files_of(models.BPE({**BYTES}, []), pre_tokenizer=pre_tokenizers.ByteLevel()), 0),
        (files_of(models.WordLevel({"film": 0, "☃": 1, "?": 2})), 0),
    ],
    ids=["word pieces", "words", "sentence pieces", "bytes", "no token for it"],
)
def test_what_the_vocabulary_lacks_is_counted_for_each_kind_of_vocabulary(files: TokenizerFiles, unknown: int) -> None:
    tokenizer = InputTokenizer(files)
    (ids,), _ = tokenizer([TextInput("film ☃ film ?")])
    assert tokenizer.unknown([ids]) == unknown


@pytest.mark.parametrize("on_long", ["truncate", "windows"])
def test_rows_and_scores_count_the_same_tokens(tiny_model_dir: Path, tmp_path: Path, on_long: str) -> None:
    bundle = str(save_tiny_bundle(tiny_model_dir, tmp_path / "bundle", on_long=on_long))
    files = TokenizerFiles.load(bundle)
    rows = row_tokens.tokenized(pa.table({"text": TEXTS}), files, on_long)["unknown"].to_pylist()
    scores = Classifier.load(bundle, precision="fp32").scores([*TEXTS, ""])
    assert (
        row_tokens.tokenized(pa.table({"text": pa.array([], pa.string())}), files, on_long)["unknown"].to_pylist() == []
    )
    # A text that is cut counts what the model read; of windows, no token twice.
    assert rows == [0, 1, 2, 30 if on_long == "truncate" else 300]
    assert scores.unknown.tolist() == [*rows, 0]
    assert scores.unknown.dtype == np.int32


def test_pairs_count_the_tokens_of_both_texts(tiny_model_dir: Path) -> None:
    files = prepare_tokenizer(str(tiny_model_dir), TextSpec(max_tokens=32), token_types=True)
    table = pa.table({"text": ["☃ film", "film"], "text_pair": ["☃", "film"]})
    assert row_tokens.tokenized(table, files)["unknown"].to_pylist() == [2, 0]


def test_the_share_is_of_the_tokens_that_are_kept() -> None:
    found = RowSummary(rows=3, token_histogram=np.bincount([4, 4, 40]), unknown=6)
    assert found.token_lengths(8)["unknown_fraction"] == 6 / 16
    assert found.token_lengths(64)["unknown_fraction"] == 6 / 48
    assert found.unknown_fraction(None) == 6 / 48
    assert RowSummary().token_lengths(8)["unknown_fraction"] == 0
    found.add(RowSummary(rows=1, token_histogram=np.bincount([4]), unknown=2))
    assert found.unknown_fraction(None) == 8 / 52


def test_many_unknown_tokens_are_a_warning_and_few_are_none() -> None:
    def warned(share: float) -> list[str]:
        tokens = {"truncated_fraction": 0.0, "max_tokens": 128, "unknown_fraction": share}
        return checks.warnings(DataSpec(), ["a", "b"], {"a": 10, "b": 99}, (0, []), tokens)

    (found,) = warned(0.2)
    assert found.startswith("20% of the tokens are [UNK]")
    assert "model.pretrained" in found
    assert warned(0.04) == []
