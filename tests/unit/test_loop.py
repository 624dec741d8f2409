"""The laws of the training loop (4 and 5) in this process, for each kind of row: no other process, no Ray."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.numpy import load_file

from textcls.bundle import make_bundle
from textcls.errors import RunDirError
from textcls.inference.classifier import Classifier
from textcls.inference.encoding import Encoded
from textcls.modeling.build import build_model, head_of, logits_of
from textcls.settings.recipe import Recipe, TextSpec
from textcls.settings.recipe_file import parse_recipe
from textcls.slices.findings import RowStudy
from textcls.slices.groups import FileGroup, SlicePlan
from textcls.tasks.multi_label import MULTI_LABEL
from textcls.tasks.single_label import SINGLE_LABEL
from textcls.tasks.task import Task
from textcls.text.tokenizer_files import prepare_tokenizer
from textcls.training import step as step_module
from textcls.training.context import UNSCORED
from textcls.training.export import export_files
from textcls.training.loop import TrainingLoop
from textcls.training.loop_result import Stopped, TrainOutcome
from textcls.training.private.budget import Budget
from textcls.training.studied_rows import StudiedRows
from textcls.training.token_rows import TokenRows

pytestmark = pytest.mark.usefixtures("one_thread")

LABELS = ("bad", "good", "so so")
# So that every epoch ends with a short batch.
ROWS = {"train": 43, "val": 17, "test": 13}
STEPS = 6


class OneProcess:
    """A `WorkerContext` of this process, whose checkpoints lie in a directory.

    Attributes:
        stop_from: step from which on the driver requests a stop, or None.
        saved: (step, score) of each checkpoint.
        lines: for the user.
        events: (name, values).
        speeds: that were exported with each step.
    """

    def __init__(self, directory: Path, *, stop_from: int | None = None) -> None:
        self.rank, self.world_size, self.device = 0, 1, torch.device("cpu")
        self.directory, self.stop_from = directory, stop_from
        self.saved: list[tuple[int, float]] = []
        self.lines: list[str] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.speeds: list[Mapping[str, float]] = []
        self.step, self.progress = 0, list[str]()

    def wrap(self, model: Any) -> Any:
        return model

    def sum_over_ranks(self, values: torch.Tensor) -> None:
        pass

    def should_stop(self) -> bool:
        return self.stop_from is not None and self.step >= self.stop_from

    @contextmanager
    def latest_checkpoint(self) -> Iterator[str | None]:
        found = sorted(self.directory.glob("step-*"))
        yield str(found[-1]) if found else None

    def checkpoint_uri(self, step: int) -> str:
        return str(self.directory / f"step-{step:08d}")

    def save_checkpoint(self, write: Callable[[str], None], *, step: int, score: float) -> None:
        self.saved.append((step, score))
        directory = Path(self.checkpoint_uri(step))
        directory.mkdir(parents=True)
        write(str(directory))

    def wait_for_checkpoints(self) -> None:
        pass

    def report_progress(self, progress: Any) -> None:
        self.step = progress.done
        self.progress.append(str(progress))

    def report_line(self, line: str) -> None:
        self.lines.append(line)

    def report_event(self, name: str, **values: Any) -> None:
        self.events.append((name, values))

    def record_step(self, seconds: float, speed: Mapping[str, float]) -> None:
        self.speeds.append(dict(speed))


def token_table(rows: int, seed: int) -> pa.Table:
    """Rows of 3 to 29 tokens; those of a label have tokens of their own."""
    chance = np.random.default_rng(seed)
    labels = chance.integers(0, len(LABELS), rows)
    ids = [[2, *(5 + 40 * label + chance.integers(0, 60, chance.integers(1, 28))), 3] for label in labels]
    return pa.table({"input_ids": pa.array(ids, pa.list_(pa.int32())), "target": pa.array(labels, pa.int32())})


def long_table(rows: int, seed: int) -> pa.Table:
    """Rows of 1 to 6 windows of 3 to 29 tokens each; those of a label have tokens of their own."""
    chance = np.random.default_rng(seed)
    labels = chance.integers(0, len(LABELS), rows)
    windows = [
        [[2, *(5 + 40 * label + chance.integers(0, 60, chance.integers(1, 28))), 3] for _ in range(1 + i % 6)]
        for i, label in enumerate(labels)
    ]
    ids = [[token for window in of_row for token in window] for of_row in windows]
    lengths = [list(map(len, of_row)) for of_row in windows]
    return pa.table(
        {
            "input_ids": pa.array(ids, pa.list_(pa.int32())),
            "windows": pa.array(lengths, pa.list_(pa.int32())),
            "target": pa.array(labels, pa.int32()),
        }
    )


def one_window_a_row(table: pa.Table) -> pa.Table:
    """The same rows where long texts would be windows."""
    windows = pa.array([[len(ids)] for ids in table["input_ids"].to_pylist()], pa.list_(pa.int32()))
    return table.append_column("windows", windows)


def with_several_labels(table: pa.Table) -> pa.Table:
    """The same rows with sets of labels: their one, in every fourth row another one too, in every fifth none."""
    targets = np.eye(len(LABELS), dtype=np.float32)[table["target"].to_numpy()]
    targets[::4, 1] = 1
    targets[::5] = 0
    column = pa.FixedSizeListArray.from_arrays(pa.array(targets.ravel()), len(LABELS))
    return table.set_column(table.column_names.index("target"), "target", column)


def as_pairs(table: pa.Table) -> pa.Table:
    """The same rows as pairs of texts, of which the second one begins in the middle."""
    seconds = [1 + len(ids) // 2 for ids in table["input_ids"].to_pylist()]
    return table.append_column("second", pa.array(seconds, pa.int32()))


class Kind(NamedTuple):
    """What rows can be: the task, whether they are pairs, and the rows of each split."""

    task: Task
    pairs: bool
    data: dict[str, TokenRows]


def kind_of(
    table: Callable[[int, int], pa.Table], change: Callable[[pa.Table], pa.Table] = lambda table: table
) -> Kind:
    data = {name: TokenRows([change(table(rows, seed))]) for seed, (name, rows) in enumerate(ROWS.items())}
    return Kind(MULTI_LABEL if change is with_several_labels else SINGLE_LABEL, change is as_pairs, data)


ONE_LABEL, LONG = kind_of(token_table), kind_of(long_table)
KINDS = {"one label": ONE_LABEL, "several labels": kind_of(token_table, with_several_labels)}
KINDS["pairs"] = kind_of(token_table, as_pairs)
LONG_KINDS = {"long texts": LONG, "long texts of several labels": kind_of(long_table, with_several_labels)}

of_each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
of_long_texts = pytest.mark.parametrize("kind", LONG_KINDS.values(), ids=LONG_KINDS)
of_each_kind_and_long_texts = pytest.mark.parametrize(
    "kind", [*KINDS.values(), *LONG_KINDS.values()], ids=[*KINDS, *LONG_KINDS]
)


class Trains:
    """Makes loops with the tiny model.

    Attributes:
        kind: of the rows that they train on.
    """

    def __init__(self, model: Path, kind: Kind) -> None:
        self._model, self.kind = model, kind

    fixed: ClassVar = ("train.precision=fp32", "train.rows_per_step=8", "train.learning_rate=0.001", "train.epochs=2")

    def built(self, recipe: Recipe) -> Any:
        problem_type, seed = self.kind.task.problem_type, recipe.train.seed
        return build_model(str(self._model), LABELS, recipe.model, problem_type=problem_type, pad_id=0, seed=seed)

    def loop(
        self, context: OneProcess, *settings: str, fingerprint: str = "run", budget: Budget | None = None
    ) -> TrainingLoop:
        recipe = parse_recipe("{}", [*self.fixed, *settings])
        task, data = self.kind.task, self.kind.data
        model = self.built(recipe)
        return TrainingLoop(
            context,
            recipe,
            task,
            LABELS,
            model,
            data,
            class_counts=task.label_rows(data["train"].targets, len(LABELS)).tolist(),
            pad_id=0,
            head=head_of(model, len(LABELS)),
            fingerprint=fingerprint,
            budget=budget,
        )

    def __call__(self, context: OneProcess, *settings: str, budget: Budget | None = None) -> TrainOutcome:
        outcome = self.loop(context, *settings, budget=budget).run()
        assert isinstance(outcome, TrainOutcome)
        return outcome


@pytest.fixture
def kind() -> Kind:
    """Of a test that asks for none: one label."""
    return ONE_LABEL


@pytest.fixture
def trains(tiny_model_dir: Path, kind: Kind) -> Trains:
    return Trains(tiny_model_dir, kind)


def weights(outcome: TrainOutcome) -> dict[str, np.ndarray]:
    return load_file(Path(outcome.state.best_uri) / "model.safetensors")


def assert_same_bits(one: TrainOutcome, other: TrainOutcome) -> None:
    for name, value in weights(one).items():
        assert (value == weights(other)[name]).all(), name
    np.testing.assert_array_equal(one.test.loss, other.test.loss)
    assert one.state.curve == other.state.curve


def spy_on_steps(monkeypatch: pytest.MonkeyPatch, before: Callable[[TrainingLoop, np.ndarray], None]) -> None:
    step = TrainingLoop._step

    def spied(self: TrainingLoop, batch: np.ndarray) -> None:
        before(self, batch)
        step(self, batch)

    monkeypatch.setattr(TrainingLoop, "_step", spied)


@of_each_kind_and_long_texts
def test_every_row_is_used_once_an_epoch_and_scored_once(
    trains: Trains, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    used: list[tuple[int, int]] = []
    spy_on_steps(monkeypatch, lambda loop, batch: used.extend((loop.state.epoch, row) for row in batch.tolist()))
    outcome = trains(OneProcess(tmp_path))
    assert sorted(used) == [(epoch, row) for epoch in range(2) for row in range(ROWS["train"])]
    assert outcome.state.step == 2 * STEPS
    assert outcome.state.rows == 2 * ROWS["train"]
    assert outcome.state.real_tokens == 2 * kind.data["train"].lengths.sum()
    assert outcome.state.padded_tokens >= outcome.state.real_tokens
    assert outcome.test.rows == ROWS["test"]


@of_each_kind_and_long_texts
def test_micro_batches_add_up_to_the_whole_step(trains: Trains, tmp_path: Path) -> None:
    settings = ("model.dropout=0", "train.epochs=1", f"train.rows_per_step={ROWS['train']}")
    whole = trains(OneProcess(tmp_path / "whole"), *settings, "train.max_tokens_per_micro_batch=65536")
    parts = trains(OneProcess(tmp_path / "parts"), *settings, "train.max_tokens_per_micro_batch=512")
    assert parts.state.padded_tokens < whole.state.padded_tokens  # each part is padded to its own longest row
    np.testing.assert_allclose(parts.state.curve, whole.state.curve, rtol=1e-6)
    for name, value in weights(parts).items():
        np.testing.assert_allclose(value, weights(whole)[name], atol=2e-5, err_msg=name)


def rates(loop: TrainingLoop) -> list[float]:
    """Runs a loop; the learning rate with which each of its steps moves the weights."""
    found: list[set[float]] = []
    loop._optimizer.register_step_pre_hook(
        lambda optimizer, *_: found.append({group["lr"] for group in optimizer.param_groups})
    )
    loop.run()
    assert [len(of_groups) for of_groups in found] == [1] * len(found)
    return [rate for of_groups in found for rate in of_groups]


def test_each_step_has_the_rate_of_its_number_also_after_a_stop(trains: Trains, tmp_path: Path) -> None:
    whole = rates(trains.loop(OneProcess(tmp_path / "whole")))
    assert whole == pytest.approx([0.0005, 0.001, *(0.0001 * left for left in range(10, 0, -1))])
    stopped = rates(trains.loop(OneProcess(tmp_path / "parts", stop_from=4)))
    assert stopped + rates(trains.loop(OneProcess(tmp_path / "parts"))) == whole


@of_each_kind
def test_the_loss_curve_has_the_mean_loss_of_a_row_since_the_last_point(
    trains: Trains, tmp_path: Path, kind: Kind
) -> None:
    context = OneProcess(tmp_path)
    outcome = trains(context)
    assert [step for step, _ in outcome.state.curve] == list(range(1, 2 * STEPS + 1))
    of_a_guess = np.log(len(LABELS) if kind.task is SINGLE_LABEL else 2)
    assert outcome.state.curve[0][1] == pytest.approx(of_a_guess, abs=0.3)  # nothing is learned yet
    assert outcome.state.curve[-1][1] < outcome.state.curve[0][1]
    assert [values["loss"] for name, values in context.events if name == "step_metrics"] == [
        loss for _, loss in outcome.state.curve
    ]
    assert context.speeds[0] == {}
    assert context.speeds[-1]["tokens_per_s"] > 0
    assert context.speeds[-1]["padding_ratio"] >= 1
    assert context.progress[-1].startswith(f"step {2 * STEPS} of {2 * STEPS} · loss ")


def test_of_equal_scores_the_earlier_epoch_is_kept(trains: Trains, tmp_path: Path) -> None:
    context = OneProcess(tmp_path)
    outcome = trains(context, "train.epochs=3", "train.learning_rate=1e-12")
    scores = [epoch["macro_f1"] for epoch in outcome.state.history]
    assert scores[0] == scores[1] == scores[2]
    assert outcome.state.best_step == STEPS
    # Ray Train keeps the checkpoint with the best score, and of equal ones the later.
    assert context.saved == [(STEPS, scores[0]), (2 * STEPS, UNSCORED), (3 * STEPS, UNSCORED)]


def test_patience_stops_and_the_best_epoch_is_kept(trains: Trains, tmp_path: Path) -> None:
    settings = ("train.patience=2", "train.learning_rate=0.3", "train.warmup_fraction=0", "train.select_by=loss")
    context = OneProcess(tmp_path)
    state = trains(context, "train.epochs=9", *settings).state
    losses = [epoch["loss"] for epoch in state.history]
    assert state.stopped_early
    assert state.epoch == len(losses) < 9
    best = int(np.argmin(losses))
    assert best == len(losses) - 3, "two epochs without an improvement"
    assert state.best_step == state.history[best]["step"]
    assert state.best_score == -min(losses)
    assert [line.partition(":")[0] for line in context.lines] == [f"epoch {n + 1} of 9" for n in range(len(losses))]


@pytest.fixture(scope="module")
def calm(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TrainOutcome]:
    """The outcome of a run of a kind to which nothing happens."""

    @cache
    def run(kind: str, *settings: str) -> TrainOutcome:
        return Trains(tiny_model_dir, (KINDS | LONG_KINDS)[kind])(
            OneProcess(tmp_path_factory.mktemp("calm")), *settings
        )

    return run


@pytest.mark.parametrize(
    ("kind_name", "killed_at"),
    [
        *((name, step) for name in KINDS for step in (0, 1, 4, STEPS, STEPS + 1, 2 * STEPS - 1)),
        *((name, STEPS + 3) for name in LONG_KINDS),
    ],
)
def test_a_run_that_is_killed_at_any_step_resumes_to_the_same_bits(
    calm: Callable[..., TrainOutcome],
    tiny_model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind_name: str,
    killed_at: int,
) -> None:
    trains = Trains(tiny_model_dir, (KINDS | LONG_KINDS)[kind_name])
    settings = ("train.checkpoint_every_steps=2", "train.class_weights=balanced", "train.label_smoothing=0.1")
    expected = calm(kind_name, *settings)

    def kill(loop: TrainingLoop, batch: np.ndarray) -> None:
        if loop.state.step == killed_at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        spy_on_steps(patch, kill)
        with pytest.raises(KeyboardInterrupt):
            trains(OneProcess(tmp_path / "killed"), *settings)
    context = OneProcess(tmp_path / "killed")
    resumed = trains(context, *settings)
    # The end of an epoch saves a checkpoint too.
    saved = killed_at - killed_at % 2 if killed_at else None
    events = [values["step"] for name, values in context.events if name == "resumed"]
    assert events == ([saved] if saved else [])
    assert_same_bits(resumed, expected)


@of_each_kind
def test_a_checkpoint_of_another_recipe_or_other_rows_is_refused(trains: Trains, tmp_path: Path) -> None:
    trains(OneProcess(tmp_path))
    with pytest.raises(RunDirError, match="is a checkpoint of another run"):
        trains.loop(OneProcess(tmp_path), fingerprint="another")


@of_each_kind
def test_the_format_of_a_checkpoint_is_the_one_that_interrupted_runs_have_on_disk(
    trains: Trains, tmp_path: Path
) -> None:
    trains(OneProcess(tmp_path), "train.epochs=1")
    (directory,) = tmp_path.iterdir()
    content = json.loads((directory / "checkpoint.json").read_text())
    assert set(content) == {"format", "run_id", "progress", "files"}
    assert (content["format"], content["run_id"]) == (1, "run")
    assert set(content["files"]) == {"config.json", "model.safetensors", "optimizer.safetensors"}
    assert list(content["progress"]) == [
        *("step", "epoch", "best_score", "best_step", "best_uri", "stale_epochs", "stopped_early", "curve", "history"),
        *("open_loss", "open_rows", "padded_tokens", "real_tokens", "rows", "seconds"),
    ]
    moments = load_file(directory / "optimizer.safetensors")
    assert {name.partition(".")[0] for name in moments} == {"exp_avg", "exp_avg_sq"}


def test_checkpoints_are_saved_every_so_many_steps_and_after_each_epoch(trains: Trains, tmp_path: Path) -> None:
    context = OneProcess(tmp_path)
    outcome = trains(context, "train.checkpoint_every_steps=2", "train.epochs=1")
    assert context.saved == [(2, UNSCORED), (4, UNSCORED), (STEPS, outcome.state.best_score)]


@pytest.mark.parametrize(
    ("kind_name", "step"), [("one label", 1), *((name, 3) for name in KINDS), ("one label", STEPS + 2)]
)
def test_a_requested_stop_saves_a_checkpoint_and_loses_no_step_and_not_a_bit(
    calm: Callable[..., TrainOutcome],
    tiny_model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind_name: str,
    step: int,
) -> None:
    trains, expected = Trains(tiny_model_dir, KINDS[kind_name]), calm(kind_name)
    steps: list[int] = []
    spy_on_steps(monkeypatch, lambda loop, batch: steps.append(loop.state.step))
    first = OneProcess(tmp_path / "stopped", stop_from=step)
    assert trains.loop(first).run() == Stopped(step)
    assert first.saved[-1] == (step, UNSCORED)
    resumed = trains(OneProcess(tmp_path / "stopped"))
    assert steps == list(range(2 * STEPS))
    assert_same_bits(resumed, expected)


def test_a_stop_that_is_requested_in_the_last_step_of_an_epoch_waits_for_its_validation(
    trains: Trains, tmp_path: Path
) -> None:
    context = OneProcess(tmp_path, stop_from=STEPS)
    assert trains.loop(context).run() == Stopped(STEPS + 1)
    assert [step for step, _ in context.saved] == [STEPS, STEPS + 1]


class OneOfTwo(OneProcess):
    """Rank 0 of two; the other one hears of a stop before this one does."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.world_size, self.sums = 2, 0

    def sum_over_ranks(self, values: torch.Tensor) -> None:
        if len(values) == 2:  # (stops requested, seconds)
            self.sums += 1
            values += torch.tensor([1.0 if self.step >= 3 else 0.0, 1e-3], dtype=torch.float64)


def test_ranks_agree_on_a_stop_that_one_of_them_hears_of(
    trains: Trains, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("textcls.training.loop._AGREE_EVERY_S", 0.0)
    context = OneOfTwo(tmp_path)
    assert trains.loop(context).run() == Stopped(3)
    assert context.sums == 3


def test_ranks_do_not_talk_at_every_step(trains: Trains, tmp_path: Path) -> None:
    context = OneOfTwo(tmp_path)
    loop = trains.loop(context, "train.rows_per_step=1", "train.epochs=1")
    for batch in list(loop._remaining_batches())[:20]:
        loop._step(batch)
        loop._should_stop()
    assert context.sums == 1


def gradients(trains: Trains, folder: Path, rank: int, world_size: int, batch: np.ndarray) -> dict[str, torch.Tensor]:
    """Of one rank's share of a step, before ranks average them."""
    context = OneProcess(folder / f"{rank} of {world_size}")
    context.rank, context.world_size = rank, world_size
    settings = ("model.dropout=0", "train.max_grad_norm=1e9", "train.class_weights=balanced")
    loop = trains.loop(context, *settings)
    loop._take_step(0, batch)
    return {name: p.grad for name, p in loop.model.named_parameters() if p.grad is not None}


@of_each_kind_and_long_texts
@pytest.mark.parametrize("rows", [8, 7, 1], ids=["a full batch", "an odd one", "a rank without a row"])
def test_the_mean_gradient_of_the_ranks_is_that_of_one_worker(trains: Trains, tmp_path: Path, rows: int) -> None:
    batch = np.arange(rows)
    alone = gradients(trains, tmp_path, 0, 1, batch)
    of_ranks = [gradients(trains, tmp_path, rank, 2, batch) for rank in (0, 1)]
    assert alone
    for name, expected in alone.items():
        mean = (of_ranks[0][name] + of_ranks[1][name]) / 2
        torch.testing.assert_close(mean, expected, rtol=1e-4, atol=1e-6)


class Ranks:
    """Two ranks in threads of this process, which average their gradients before each step, as DDP does."""

    def __init__(self, trains: Trains, folder: Path, *settings: str) -> None:
        self._meeting, self._of_rank, self._thread = threading.Barrier(2, timeout=60), {}, threading.local()
        self._loops = [trains.loop(self._context(folder / str(rank), rank), *settings) for rank in (0, 1)]

    def run(self, monkeypatch: pytest.MonkeyPatch) -> list[TrainOutcome]:
        """The outcome of each rank."""
        clip = step_module.clip_gradients

        def average_and_clip(model: Any, max_norm: float) -> None:
            parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
            both = self._gathered([parameter.grad.clone() for parameter in parameters])
            for parameter, *gradients in zip(parameters, *both, strict=True):
                parameter.grad = sum(gradients) / 2
            clip(model, max_norm)

        def gather(totals: list[Any], own: Any) -> None:
            totals[:] = self._gathered(own)

        monkeypatch.setattr(step_module, "clip_gradients", average_and_clip)
        monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
        with ThreadPoolExecutor(2) as threads:
            return list(threads.map(self._run, (0, 1)))

    def _run(self, rank: int) -> TrainOutcome:
        self._thread.rank = rank
        try:
            outcome = self._loops[rank].run()
        except BaseException:
            self._meeting.abort()
            raise
        assert isinstance(outcome, TrainOutcome)
        return outcome

    def _context(self, folder: Path, rank: int) -> OneProcess:
        context = OneProcess(folder)
        context.rank, context.world_size = rank, 2
        context.sum_over_ranks = lambda values: values.copy_(sum(self._gathered(values.clone())))  # type: ignore[method-assign]
        return context

    def _gathered(self, own: Any) -> list[Any]:
        self._of_rank[self._thread.rank] = own
        self._meeting.wait()
        found = [self._of_rank[0], self._of_rank[1]]
        self._meeting.wait()
        return found


@of_each_kind_and_long_texts
def test_two_ranks_learn_what_one_learns(trains: Trains, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ("model.dropout=0", "train.class_weights=balanced", "train.label_smoothing=0.1")
    one = trains(OneProcess(tmp_path / "one"), *settings)
    two = Ranks(trains, tmp_path / "two", *settings).run(monkeypatch)
    for rank in two:
        np.testing.assert_allclose(rank.state.curve, one.state.curve, rtol=1e-4)
        for name, value in weights(rank).items():
            np.testing.assert_allclose(value, weights(one)[name], atol=1e-4, err_msg=name)
        assert rank.test.rows == one.test.rows == ROWS["test"]
        assert rank.test.loss == pytest.approx(one.test.loss, rel=1e-3)
        assert rank.state.rows == one.state.rows


# --- long texts ------------------------------------------------------------------------------------------------------


@of_long_texts
def test_the_loss_of_a_row_is_the_mean_over_its_windows(trains: Trains, tmp_path: Path, kind: Kind) -> None:
    rows = kind.data["train"]
    loop = trains.loop(OneProcess(tmp_path), "model.dropout=0")
    batch = np.array([5, 0, 3])
    losses = []
    with torch.no_grad():
        for row in batch:
            each = rows.batch(rows.windows_of(np.array([row])), 0)
            logits_BC = logits_of(loop.model.eval(), each.input_ids_BL, each.attention_mask_BL, bf16=False)
            of_one_window = {
                "single_label": torch.nn.functional.cross_entropy,
                "multi_label": torch.nn.functional.binary_cross_entropy_with_logits,
            }[kind.task.name]
            losses.append(of_one_window(logits_BC, each.targets_B).item())
    cost = loop._take_step(0, batch)
    assert cost.loss_sum.item() == pytest.approx(sum(losses), rel=1e-5)
    assert cost.real_tokens == rows.lengths[batch].sum()


def test_a_row_of_many_windows_stays_within_the_budget_of_a_micro_batch(
    trains: Trains, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = [64 - i % 40 for i in range(50)]
    table = pa.table(
        {
            "input_ids": pa.array([[5] * sum(lengths), [2, 5, 3]], pa.list_(pa.int32())),
            "windows": pa.array([lengths, [3]], pa.list_(pa.int32())),
            "target": pa.array([0, 1], pa.int32()),
        }
    )
    ran: list[int] = []
    forward = step_module.logits_of

    def spied(model: Any, input_ids_BL: torch.Tensor, *rest: Any, **how: Any) -> torch.Tensor:
        ran.append(input_ids_BL.numel())
        return forward(model, input_ids_BL, *rest, **how)

    monkeypatch.setattr(step_module, "logits_of", spied)
    trains.kind = LONG._replace(data=LONG.data | {"train": TokenRows([table])})
    loop = trains.loop(OneProcess(tmp_path), "train.max_tokens_per_micro_batch=512")
    cost = loop._take_step(0, np.array([0, 1]))
    assert max(ran) <= 512
    assert sum(ran) == cost.padded_tokens >= cost.real_tokens


def test_rows_of_one_window_each_train_to_the_bits_of_texts_that_are_cut(trains: Trains, tmp_path: Path) -> None:
    cut = trains(OneProcess(tmp_path / "cut"))
    trains.kind = kind_of(token_table, one_window_a_row)
    assert_same_bits(trains(OneProcess(tmp_path / "windows")), cut)


@of_each_kind_and_long_texts
def test_training_reports_the_scores_that_its_bundle_gives(
    trains: Trains, tiny_model_dir: Path, tmp_path: Path, kind: Kind
) -> None:
    """Micro-batches of 512 tokens divide the windows of the rows that are scored together."""
    task = kind.task
    settings = ("calibration.min_precision=0.6", "train.max_tokens_per_micro_batch=512")
    outcome = trains(OneProcess(tmp_path / "run"), *settings)
    text, bundle = TextSpec(max_tokens=32, on_long="truncate" if kind.pairs else "windows"), tmp_path / "bundle"
    bundle.mkdir()
    tokenizer = prepare_tokenizer(str(tiny_model_dir), text, token_types=kind.pairs)
    divisors = outcome.calibration.temperatures or outcome.calibration.temperature
    export_files(outcome.state.best_uri, str(bundle), tokenizer=tokenizer, head=outcome.head, temperature=divisors)
    make_bundle(
        str(bundle),
        task=task,
        labels=LABELS,
        text=text,
        metrics={},
        recipe=parse_recipe("{}", ["train.precision=fp32", *["data.pair=[question, answer]"] * kind.pairs]),
        data_fingerprint="",
        calibration=outcome.calibration,
    )
    classifier = Classifier.load(str(bundle), device="cpu", precision="fp32")

    def counts(split: str, **how: Any) -> Any:
        rows, encoded = kind.data[split], []
        for row in range(len(rows)):
            windows = rows.windows_of(np.array([row]))
            batch, lengths = rows.batch(windows, 0), rows.window_lengths[windows]
            ids = [ids[:length] for ids, length in zip(batch.input_ids_BL.tolist(), lengths, strict=True)]
            second = None if rows.seconds is None else int(rows.seconds[row])
            encoded.append(Encoded(ids, int(lengths.sum()), False, second=second))
        return task.counts(classifier.score_encoded(encoded).probabilities, rows.targets, **how)

    assert divisors != 1
    expected = task.summarise(counts("test", thresholds=classifier.thresholds), LABELS)
    found = task.summarise(outcome.test, LABELS)
    assert found["rows"] == ROWS["test"]
    assert found["answered"] == expected["answered"]
    assert task.headline(found) == pytest.approx(task.headline(expected), abs=1e-6)
    ece = task.headline(task.summarise(counts("val"), LABELS))["ece"]
    assert outcome.calibration.ece_after == pytest.approx(ece, abs=1e-6)


@of_long_texts
def test_long_rows_are_scored_once_whatever_the_number_of_ranks(
    trains: Trains, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = trains.loop(OneProcess(tmp_path))._scoring.counts("val")
    own: list[Any] = []

    def gather(totals: list[Any], of_rank: Any) -> None:
        own.append(of_rank[0])
        totals[:] = [of_rank] * len(totals)

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    for rank in range(3):
        scoring = trains.loop(OneProcess(tmp_path))._scoring
        scoring._rank, scoring._world_size = rank, 3
        scoring.counts("val")
    together = own[0] + own[1] + own[2]
    assert together.rows == alone.rows == ROWS["val"]
    assert together.loss == pytest.approx(alone.loss, rel=1e-6)


def studied_rows(kind: Kind, **without: None) -> StudiedRows:
    """Finds slices and examples among the test rows of a kind; columns of their facts may be left out."""
    rows = ROWS["test"]
    facts = {"row_id": np.arange(2, 2 + rows), "tokens": kind.data["test"].lengths}
    table = pa.table({name: values for name, values in facts.items() if name not in without})
    plan = SlicePlan(FileGroup.of(["a.csv"], {0: rows}))
    return StudiedRows([table], RowStudy(kind.task, LABELS, plan), TextSpec())


@of_each_kind
def test_slices_and_examples_are_the_same_whatever_the_number_of_ranks(
    trains: Trains, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = trains.kind
    thresholds, studied = kind.task.default_thresholds(len(LABELS)), studied_rows(kind)
    counts, alone = trains.loop(OneProcess(tmp_path))._scoring.counts_and_findings("test", thresholds, studied)
    own: list[Any] = []

    def gather(totals: list[Any], of_rank: Any) -> None:
        own.append(of_rank[1])
        totals[:] = [of_rank] * len(totals)

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    for rank in range(3):
        scoring = trains.loop(OneProcess(tmp_path), "text.max_tokens=64")._scoring
        scoring._rank, scoring._world_size, scoring._max_tokens = rank, 3, 64
        scoring.counts_and_findings("test", thresholds, studied)
    found, together = alone.found(), (own[2] + own[0] + own[1]).found()
    summary = kind.task.summarise(counts, LABELS)
    assert found.total.tolist() == [ROWS["test"], round(summary[kind.task.share_of_right]["value"] * ROWS["test"])]
    assert together.total.tolist() == found.total.tolist()
    assert together.counts.tolist() == found.counts.tolist()
    assert [one.row_id for one in together.mistakes] == [one.row_id for one in found.mistakes]
    assert [one.row_id for one in together.unsure] == [one.row_id for one in found.unsure]


def test_slices_that_cannot_be_found_cost_no_score(trains: Trains, tmp_path: Path) -> None:
    scoring, thresholds = trains.loop(OneProcess(tmp_path))._scoring, np.zeros(1)
    counts, studied = scoring.counts_and_findings("test", thresholds, studied_rows(trains.kind, tokens=None))
    assert counts.rows == ROWS["test"]
    with pytest.raises(RuntimeError, match="tokens"):
        studied.found()
