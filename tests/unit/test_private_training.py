"""Differentially private training in this process: what is clipped, added, sampled and repeated; what is secret."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
import pytest
import torch
from scipy import stats

from tests.unit.test_loop import KINDS, ONE_LABEL, ROWS, Kind, OneProcess, Trains, rates, spy_on_steps, weights
from textcls.modeling.build import freeze_untrained, logits_of
from textcls.modeling.cpu_training import adapt_to_cpu
from textcls.settings.privacy import Weights
from textcls.settings.recipe import Recipe
from textcls.training import checkpoint
from textcls.training.loop import TrainingLoop
from textcls.training.loop_result import TrainOutcome
from textcls.training.optimizer import row_losses
from textcls.training.private.budget import Budget
from textcls.training.private.clipping import RowClipper
from textcls.training.private.poisson_plan import PoissonPlan
from textcls.training.private.randomness import new_key, normals, sampled

pytestmark = pytest.mark.usefixtures("one_thread")

KEY = bytes(range(32))
BUDGET = Budget(
    epsilon=8.0,
    delta=0.01,
    accountant="none",
    rows=ROWS["train"],
    sampling_rate=8 / ROWS["train"],
    steps=12,
    noise_multiplier=0.8,
    max_grad_norm=0.1,
)
of_each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


class TrainsPrivately(Trains):
    """Makes loops of private training with the tiny model."""

    fixed: ClassVar = (
        "privacy.epsilon=8",
        "privacy.weights=all",
        "train.rows_per_step=8",
        "train.epochs=2",
        "model.dropout=0",
    )

    def built(self, recipe: Recipe) -> Any:
        model = super().built(recipe)
        freeze_untrained(model, recipe.privacy.weights)
        adapt_to_cpu(model, alone=False)
        return model

    def loop(
        self, context: OneProcess, *settings: str, fingerprint: str = "run", budget: Budget | None = BUDGET
    ) -> TrainingLoop:
        return super().loop(context, *settings, fingerprint=fingerprint, budget=budget)

    def __call__(self, context: OneProcess, *settings: str, budget: Budget | None = BUDGET) -> TrainOutcome:
        return super().__call__(context, *settings, budget=budget)


@pytest.fixture
def kind() -> Kind:
    return ONE_LABEL


@pytest.fixture
def trains(tiny_model_dir: Path, kind: Kind) -> TrainsPrivately:
    return TrainsPrivately(tiny_model_dir, kind)


def row_gradients(loop: TrainingLoop, rows: np.ndarray) -> dict[str, torch.Tensor]:
    """Name -> the gradient of each row's loss alone, by autograd, [B, ...]."""
    found: dict[str, list[torch.Tensor]] = {}
    for row in rows:
        batch = loop._data["train"].batch(np.array([row]), 0)
        logits_BC = logits_of(loop.model, batch.input_ids_BL, None, batch.token_types_BL, bf16=False)
        loss = row_losses(loop._task.problem_type, logits_BC, batch.targets_B, None, 0.0).sum()
        trained = {name: one for name, one in loop.model.named_parameters() if one.requires_grad}
        for name, gradient in zip(trained, torch.autograd.grad(loss, trained.values()), strict=True):
            found.setdefault(name, []).append(gradient)
    return {name: torch.stack(of_rows) for name, of_rows in found.items()}


@of_each_kind
@pytest.mark.parametrize("max_norm", [0.05, 1.0, 1e9])
def test_each_row_s_gradient_is_scaled_down_and_summed_as_autograd_has_it_row_by_row(
    trains: TrainsPrivately, tmp_path: Path, max_norm: float
) -> None:
    loop = trains.loop(
        OneProcess(tmp_path), "train.max_tokens_per_micro_batch=512", budget=replace(BUDGET, max_grad_norm=max_norm)
    )
    stepper: Any = loop._take_step
    rows = np.arange(ROWS["train"])
    loop.model.train()
    stepper._add_gradients(rows)
    stepper.clipper.detach()
    gradients = row_gradients(loop, rows)
    norms_B = torch.stack([one.flatten(1).norm(dim=1) for one in gradients.values()]).norm(dim=0)
    factors_B = (max_norm / norms_B).clamp(max=1)
    for name, parameter in loop.model.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None, name
            continue
        of_rows = gradients[name]
        expected = (of_rows * factors_B.view(-1, *[1] * (of_rows.ndim - 1))).sum(0)
        torch.testing.assert_close(
            parameter.grad, expected, rtol=1e-3, atol=2e-5 * max(1.0, float(expected.abs().max()))
        )


def trained(loop: TrainingLoop) -> dict[str, torch.Tensor]:
    return {name: one.detach().clone() for name, one in loop.model.named_parameters() if one.requires_grad}


def gradient_of_step(
    trains: TrainsPrivately, directory: Path, step: int, batch: np.ndarray, **change: Any
) -> torch.Tensor:
    """float32 [all trained weights]: what a step gives the optimizer."""
    loop = trains.loop(OneProcess(directory), budget=replace(BUDGET, **change))
    stepper: Any = replace(loop._take_step, key=KEY)  # type: ignore[type-var]
    stepper(step, batch)
    return torch.cat([one.grad.ravel() for one in loop.model.parameters() if one.requires_grad])


@of_each_kind
@pytest.mark.parametrize("weights", get_args(Weights))
def test_without_noise_and_scaling_a_run_has_the_weights_of_plain_training(
    tiny_model_dir: Path, tmp_path: Path, kind: Kind, weights: Weights
) -> None:
    """On the same batches, all of the expected size; the plain gradient is not scaled either."""
    private = TrainsPrivately(tiny_model_dir, kind)
    settings = (
        f"privacy.weights={weights}",
        "train.epochs=1",
        "train.rows_per_step=43",
        "train.max_grad_norm=1e9",
        "train.learning_rate=0.01",
    )
    budget = replace(BUDGET, sampling_rate=1.0, noise_multiplier=0.0, max_grad_norm=1e9)
    one = private.loop(OneProcess(tmp_path / "private"), *settings, budget=budget)
    others = ("train.weight_decay=0", "train.warmup_fraction=0", "model.dropout=0", "calibration.temperature=false")
    other = Trains(tiny_model_dir, kind).loop(OneProcess(tmp_path / "plain"), *settings, *others)
    freeze_untrained(other.model, weights)
    begun = trained(one)
    for step in range(3):
        one._take_step(step, np.arange(43))
        other._take_step(step, np.arange(43))
    for name, value in trained(one).items():
        torch.testing.assert_close(value, trained(other)[name], atol=2e-5, rtol=1e-4)
        assert not torch.equal(value, begun[name]) or name.endswith("bias"), name


def test_the_noise_that_reaches_the_weights_is_what_the_accountant_was_told(
    trains: TrainsPrivately, tmp_path: Path
) -> None:
    batch = np.arange(8)
    noisy = gradient_of_step(trains, tmp_path / "a", 3, batch)
    calm = gradient_of_step(trains, tmp_path / "b", 3, batch, noise_multiplier=0.0)
    added = (noisy - calm) * BUDGET.expected_rows / BUDGET.max_grad_norm
    assert len(added) > 15_000
    # The standard error of the deviation of so many numbers is 0.6 %; those of this key are fixed.
    assert float(added.std()) == pytest.approx(BUDGET.noise_multiplier, rel=0.01)
    assert float(added.mean()) == pytest.approx(0, abs=0.02)
    # Divided by the expected rows, not by the 8 of this batch or the 3 of another.
    few = gradient_of_step(trains, tmp_path / "c", 3, batch[:3]) - gradient_of_step(
        trains, tmp_path / "d", 3, batch[:3], noise_multiplier=0.0
    )
    torch.testing.assert_close(few, noisy - calm, atol=1e-6, rtol=1e-4)


def test_deviates_are_normal_and_do_not_depend_on_threads() -> None:
    found = normals(KEY, 0, 3_000_000, threads=1)
    assert float(found.std()) == pytest.approx(1, rel=0.002)
    assert stats.kstest(found[::30], "norm").pvalue > 0.01
    assert abs(float(np.corrcoef(found[:-1], found[1:])[0, 1])) < 0.003
    # 1 in 31,574 is beyond 4 standard deviations.
    assert (np.abs(found) > 4).sum() == pytest.approx(190, abs=60)
    assert np.array_equal(found, normals(KEY, 0, 3_000_000, threads=3))
    assert np.array_equal(found[:1000], normals(KEY, 0, 1000))
    for other in (normals(KEY, 1, 1000), normals(KEY[::-1], 0, 1000)):
        assert abs(float(np.corrcoef(found[:1000], other)[0, 1])) < 0.15


def test_each_row_takes_part_by_a_draw_of_its_own() -> None:
    rows, rate, steps = 200, 0.1, 4000
    taken = np.zeros((steps, rows), bool)
    for step in range(steps):
        taken[step, sampled(KEY, step, rows, rate)] = True
    sizes = taken.sum(1)
    expected = stats.binom.pmf(np.arange(10, 31), rows, rate) * steps
    observed = np.array([(sizes == size).sum() for size in range(10, 31)])
    rest_expected, rest = steps - expected.sum(), steps - observed.sum()
    assert stats.chisquare([*observed, rest], [*expected, rest_expected]).pvalue > 0.01
    of_rows = taken.sum(0)
    assert stats.kstest(stats.binom.cdf(of_rows, steps, rate), "uniform").pvalue > 0.01
    together = np.corrcoef(taken.T.astype(float))[np.triu_indices(rows, 1)]
    assert abs(float(together.mean())) < 0.001
    assert float(together.std()) == pytest.approx(1 / np.sqrt(steps), rel=0.1)


def test_a_rate_of_one_takes_every_row_and_a_small_one_may_take_none() -> None:
    assert sampled(KEY, 0, 5, 1.0).tolist() == [0, 1, 2, 3, 4]
    sizes = [len(sampled(KEY, step, 10, 0.01)) for step in range(100)]
    assert 0 in sizes
    assert max(sizes) > 0


def test_a_plan_has_the_batches_of_its_epoch() -> None:
    first, second = (PoissonPlan(BUDGET, KEY, 6 * epoch, 6) for epoch in range(2))
    batches = [plan[step].tolist() for plan in (first, second) for step in range(len(plan))]
    assert batches == [sampled(KEY, step, BUDGET.rows, BUDGET.sampling_rate).tolist() for step in range(12)]
    assert len({tuple(batch) for batch in batches}) > 10
    with pytest.raises(IndexError):
        first[6]


def fixed_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textcls.training.loop.new_key", lambda: KEY)


@of_each_kind
@pytest.mark.parametrize("killed_at", [0, 1, 4, 6, 9])
def test_a_run_that_is_killed_at_any_step_resumes_to_the_same_bits(
    trains: TrainsPrivately, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    """Every attempt repeats the rows and the noise of a step, with the secret of the checkpoint."""
    settings = ("train.checkpoint_every_steps=2",)
    with monkeypatch.context() as patch:
        fixed_key(patch)
        calm = trains(OneProcess(tmp_path / "calm"), *settings)

    def kill(loop: TrainingLoop, batch: np.ndarray) -> None:
        if loop.state.step == killed_at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        fixed_key(patch)
        spy_on_steps(patch, kill)
        with pytest.raises(KeyboardInterrupt):
            trains(OneProcess(tmp_path / "killed"), *settings)
    resumed = trains(OneProcess(tmp_path / "killed"), *settings)
    for name, value in weights(calm).items():
        assert (value == weights(resumed)[name]).all(), name
    assert resumed.state.curve == calm.state.curve
    assert resumed.state.step == 12


def test_two_runs_have_secrets_of_their_own_whatever_the_seed(trains: TrainsPrivately, tmp_path: Path) -> None:
    one, other = (trains(OneProcess(tmp_path / name)) for name in "ab")
    assert any((value != weights(other)[name]).any() for name, value in weights(one).items())
    keys = {checkpoint.read_key(str(path.parent)) for path in tmp_path.rglob(checkpoint.KEY)}
    assert len(keys) == 2
    assert {len(key) for key in keys} == {32}
    assert new_key() != new_key()


def test_a_secret_is_readable_by_its_owner_alone_and_guarded_by_the_manifest(
    trains: TrainsPrivately, tmp_path: Path
) -> None:
    trains(OneProcess(tmp_path))
    (path,) = (tmp_path / "step-00000012").glob(checkpoint.KEY)
    assert path.stat().st_mode & 0o077 == 0
    key = path.read_bytes()
    texts = [other.read_bytes() for other in tmp_path.rglob("*") if other.is_file() and other.name != checkpoint.KEY]
    assert not any(key in text or key.hex().encode() in text for text in texts)


def test_the_last_checkpoint_is_kept_whatever_its_validation(trains: TrainsPrivately, tmp_path: Path) -> None:
    others_were_better = 0
    for number in range(12):  # which epoch is the best is a matter of the noise
        context = OneProcess(tmp_path / str(number))
        outcome = trains(context, "train.epochs=4", "train.learning_rate=0.5", "train.select_by=loss")
        assert outcome.state.best_step == 24
        assert context.saved[-1][1] == max(score for _, score in context.saved)
        losses = [epoch["loss"] for epoch in outcome.state.history]
        others_were_better += losses[-1] > min(losses)
    assert others_were_better


def test_each_private_step_has_the_rate_of_its_number(trains: TrainsPrivately, tmp_path: Path) -> None:
    found = rates(trains.loop(OneProcess(tmp_path), "train.learning_rate=0.012"))
    assert found == pytest.approx([0.001 * left for left in range(12, 0, -1)])


def test_steps_without_a_row_take_place(
    trains: TrainsPrivately, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed_key(monkeypatch)
    outcome = trains(OneProcess(tmp_path), budget=replace(BUDGET, sampling_rate=0.01))
    assert outcome.state.step == 12
    assert 0 < outcome.state.rows < 12
    assert 0 < len(outcome.state.curve) < 12, "no point without a row"
    nothing = trains(OneProcess(tmp_path / "none"), budget=replace(BUDGET, sampling_rate=1e-9))
    assert nothing.state.rows == 0
    assert nothing.state.step == 12


@of_each_kind
def test_two_ranks_take_the_step_of_one(
    trains: TrainsPrivately, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 1 first: what it sums is what rank 0 adds to its own; the noise is added once."""
    fixed_key(monkeypatch)
    batch = np.arange(0, 43, 4)
    alone = trains.loop(OneProcess(tmp_path / "alone"))
    alone._take_step(5, batch)
    sums: list[torch.Tensor] = []

    def of_rank(rank: int, sum_over_ranks: Callable[[torch.Tensor], None]) -> TrainingLoop:
        loop = trains.loop(OneProcess(tmp_path / f"rank {rank}"))
        stepper: Any = replace(loop._take_step, rank=rank, world_size=2, sum_over_ranks=sum_over_ranks)  # type: ignore[type-var]
        stepper(5, batch)
        return loop

    of_rank(1, lambda values: sums.append(values.clone()))
    together = of_rank(0, lambda values: values.add_(sums[0]))
    for name, value in trained(together).items():
        torch.testing.assert_close(value, trained(alone)[name], atol=1e-6, rtol=1e-4)
    assert float(sums[0].norm()) <= len(batch) * BUDGET.max_grad_norm, "rank 1 adds no noise"


def test_something_but_rows_in_a_layer_is_refused(tiny_model_dir: Path) -> None:
    """As DeBERTa's relative positions, which all rows share."""

    class Shared(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = torch.nn.Embedding(10, 4)
            self.words.weight.requires_grad_(False)
            self.of_positions = torch.nn.Linear(4, 4)
            self.head = torch.nn.Linear(4, 1)

        def get_input_embeddings(self) -> torch.nn.Embedding:
            return self.words

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.words(ids) + self.of_positions(torch.ones(1, 2, 4))).sum((1, 2))

    model = Shared()
    clipper = RowClipper(model, 1.0)
    with clipper.watching():
        losses_B = model(torch.ones(3, 2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"of_positions\.\w+ has no gradient for each row"):
        clipper.add(losses_B)
