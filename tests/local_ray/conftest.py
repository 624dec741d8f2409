"""A local Ray for the tests of this folder, and small runs on it."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from textcls.batch import actor_pool
from textcls.data.input_files import expand
from textcls.data.read import ReadRows, read_rows
from textcls.data.split_blocks import PreparedData, split_rows
from textcls.settings.recipe import Recipe
from textcls.settings.recipe_file import parse_recipe
from textcls.tasks.single_label import SINGLE_LABEL
from textcls.text.tokenizer import prepare_tokenizer


@pytest.fixture(scope="package", autouse=True)
def local_ray() -> Iterator[None]:
    """Ray with 4 logical CPUs whatever the machine has, so that data and two workers fit side by side.

    It ends with this folder, as long as the folder has an `__init__.py`: pytest's packages are Python's.
    """
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=200 * 2**20,
    )
    yield
    WARM.close()
    ray.shutdown()


class _WarmActors:
    """In place of Ray in actor_pool: actors that outlive a job, because each takes seconds to import torch."""

    def __init__(self) -> None:
        self._idle: list[tuple[dict[str, Any], Any]] = []
        self._used: list[tuple[dict[str, Any], Any]] = []

    @contextmanager
    def pool(self) -> Iterator[None]:
        """A block in which jobs use them; an error in it ends those that it used."""
        outer, self._used = self._used, []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(actor_pool, "ray", self)
            try:
                yield
                self._idle += self._used
            except BaseException:
                for _, actor in self._used:
                    ray.kill(actor)
                raise
            finally:
                self._used = outer

    def close(self) -> None:
        """Ends them all."""
        for _, actor in self._idle:
            ray.kill(actor)
        self._idle = []

    def __getattr__(self, name: str) -> Any:
        return getattr(ray, name)

    def remote(self, actor_class: type) -> Any:
        def with_options(**options: Any) -> Any:
            return SimpleNamespace(remote=lambda *arguments: self._actor(actor_class, options, arguments))

        return SimpleNamespace(options=with_options)

    def kill(self, actor: Any) -> None:
        """A job is done with an actor."""

    def _actor(self, actor_class: type, options: dict[str, Any], arguments: tuple[Any, ...]) -> Any:
        class Reused:
            """Travels by value: workers cannot import this module."""

            def begin(self, actor_class: type, *arguments: Any) -> None:
                self.actor = actor_class(*arguments)

            def run(self, work: Any, item: Any) -> Iterator[Any]:
                yield from self.actor.run(work, item)

        found = next((one for one in self._idle if one[0] == options), None)
        if found:
            self._idle.remove(found)
        else:
            # An idle one holds no CPU: a training run takes all there are.
            found = options, ray.remote(Reused).options(**options | {"num_cpus": 0}).remote()
        self._used.append(found)
        found[1].begin.remote(actor_class, *arguments)
        return found[1]


WARM = _WarmActors()


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
    return read_rows(expand(recipe.data.csv), recipe.data, recipe.text, tokenizer, task=SINGLE_LABEL)


def prepared_data(recipe: Recipe) -> PreparedData:
    """The rows of a recipe, read, tokenized and split."""
    return split_rows(read(recipe), recipe.split, max_tokens=recipe.text.max_tokens)
