"""The packaged demo reviews as benchmarks read them: in this process, without Ray.

In: a recipe of the demo data, or the name of a source. Out: clean rows, their token ids, texts in random order.
Not here: what is measured with them.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from textcls.data.csv_records import read_shard
from textcls.data.csv_shards import plan_shards
from textcls.data.input_files import expand
from textcls.data.rows import CleanRow, RowCleaner
from textcls.settings.recipe import Recipe
from textcls.settings.recipe_file import parse_recipe
from textcls.tasks.single_label import SINGLE_LABEL
from textcls.text.tokenizer import InputTokenizer
from textcls.text.tokenizer_files import TokenizerFiles
from textcls.training.token_rows import TokenRows

LABELS = ("negative", "positive")
_RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "quickstart.yaml"


def clean_rows(recipe: Recipe) -> list[CleanRow]:
    """The rows that can be used, in the order of the file."""
    layouts, shards = plan_shards(expand(recipe.data.csv), recipe.data)
    clean = RowCleaner(layouts[0], recipe.data, recipe.text, SINGLE_LABEL)
    outcomes = (clean(line, fields) for shard in shards for line, fields in read_shard(shard, layouts[0], recipe.data))
    return [row for row in outcomes if isinstance(row, CleanRow)]


def token_rows(rows: Sequence[CleanRow], tokenizer: TokenizerFiles) -> TokenRows:
    """The rows as in training, with targets in the order of `LABELS`."""
    ids, _ = InputTokenizer(tokenizer)([row.input for row in rows])
    labels = pa.array([LABELS.index(row.label) for row in rows], pa.int32())
    return TokenRows([pa.table({"input_ids": pa.array(ids, pa.list_(pa.int32())), "target": labels})])


def texts_of(source: str) -> list[str]:
    """The texts of a source, rotten_tomatoes or imdb, in the order of the file."""
    recipe = parse_recipe(_RECIPE.read_text(encoding="utf-8"), [f"data.where.source={source}"])
    return [row.input.text for row in clean_rows(recipe)]


def sample_texts(source: str, most: int) -> list[str]:
    """At most so many texts of a source, in random order; each time the same."""
    texts = texts_of(source)
    return [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[:most]]
