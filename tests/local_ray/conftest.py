"""A local Ray for the tests of this folder, and small runs on it."""

import csv
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import ray

from textcls.batch import actor_pool
from textcls.data.input_files import expand
from textcls.data.prepared_rows import PreparedData
from textcls.data.read import ReadRows, read_rows
from textcls.data.slice_columns import with_slices
from textcls.data.split_blocks import split_rows
from textcls.settings.recipe import Recipe
from textcls.settings.recipe_file import parse_recipe
from textcls.tasks.registry import task_of
from textcls.text.tokenizer_files import prepare_tokenizer


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


class Kind(NamedTuple):
    """How rows of one text and one label are written as rows of another kind.

    Attributes:
        settings: that read them.
        columns: of the text or the pair.
        texts: the text -> the cells of these columns.
        label: (text, label) -> the cell of the label.
    """

    settings: tuple[str, ...] = ()
    columns: tuple[str, ...] = ("text",)
    texts: Callable[[str], tuple[str, ...]] = lambda text: (text,)
    label: Callable[[str, str], str] = lambda text, label: label


def _labels(text: str, label: str) -> str:
    """The label, that of a long text, both or none."""
    words = len(text.split())
    return "; ".join([label] * (words % 4 > 0) + ["long"] * (words > 12))


KINDS = {
    "one label": Kind(),
    "several labels": Kind(("data.labels_in=cell", "data.label_delimiter=;"), label=_labels),
    "pairs": Kind(("data.pair=[question, answer]",), ("question", "answer"), lambda text: text.partition(" ")[::2]),
}

PAIRS_OF_SEVERAL_LABELS = KINDS["pairs"]._replace(
    settings=(*KINDS["pairs"].settings, *KINDS["several labels"].settings), label=_labels
)


def rewritten(path: Path, kind: Kind) -> Path:
    """A file of `text` and `label`, and what other columns it has, with its rows as another kind, in their order."""
    with path.open(newline="") as file:
        (_, _, *others), *rows = csv.reader(file)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow([*kind.columns, "label", *others])
        table.writerows([*kind.texts(text), kind.label(text, label), *rest] for text, label, *rest in rows)
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
    data = with_slices(recipe.data, recipe.report.slices)
    tokenizer = prepare_tokenizer(recipe.model.pretrained, recipe.text, token_types=data.pair is not None)
    return read_rows(expand(data.csv), data, recipe.text, tokenizer, task=task_of(data))


def prepared_data(recipe: Recipe) -> PreparedData:
    """The rows of a recipe, read, tokenized and split."""
    return split_rows(read(recipe), recipe.split, max_tokens=recipe.text.max_tokens)
