"""A local Ray for the tests of this folder, and small runs on it."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from textcls.data.input_files import expand
from textcls.data.read import ReadRows, read_rows
from textcls.data.split_blocks import PreparedData, split_rows
from textcls.settings.recipe import Recipe
from textcls.settings.recipe_file import parse_recipe
from textcls.text.tokenizer import prepare_tokenizer


@pytest.fixture(scope="session", autouse=True)
def local_ray() -> Iterator[None]:
    """Ray with 4 logical CPUs whatever the machine has, so that data and two workers fit side by side."""
    import ray

    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=200 * 2**20,
    )
    yield
    ray.shutdown()


def write_reviews(path: Path, rows: int, seed: int = 0) -> Path:
    """A CSV of reviews of uneven length; their words give the label away, and some hold a line break."""
    chance = random.Random(seed)
    words = {"positive": ["great", "moving", "wonderful", "fine"], "negative": ["awful", "boring", "bad", "dull"]}
    lines = ["text,label"]
    for i in range(rows):
        label = chance.choice(list(words))
        text = " ".join(
            chance.choice([*words[label], "the film", "its plot", "was", "really", f"{i}"])
            for _ in range(chance.randint(2, 25))
        )
        lines.append(f'"{text}{chance.choice(["", chr(10) + "and so on"])}, no {i}",{label}')
    path.write_text("\n".join(lines) + "\n", newline="")
    return path


def small_recipe(model: Path, csv: Path, *overrides: str) -> Recipe:
    """A recipe that trains the tiny model in seconds, in float32."""
    return parse_recipe(
        "{}",
        [
            f"data.csv='{csv}'",
            f"model.pretrained='{model}'",
            "text.max_tokens=32",
            "train.precision=fp32",
            "train.rows_per_step=16",
            "train.learning_rate=0.001",
            "train.epochs=2",
            *overrides,
        ],
    )


def read(recipe: Recipe) -> ReadRows:
    """The rows of a recipe, read and tokenized."""
    tokenizer = prepare_tokenizer(recipe.model.pretrained, recipe.text)
    return read_rows(expand(recipe.data.csv), recipe.data, recipe.text, tokenizer)


def prepared_data(recipe: Recipe) -> PreparedData:
    """The rows of a recipe, read, tokenized and split."""
    return split_rows(read(recipe), recipe.split, max_tokens=recipe.text.max_tokens)
