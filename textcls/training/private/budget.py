"""How much noise an epsilon needs.

In: the recipe and the number of training rows. Out: a `Budget`: the noise multiplier, and what determines it.
Not here: the noise itself (randomness.py), where it is added (step.py).

Computed by opacus, which composes privacy loss random variables numerically (PRV; Gopi, Lee, Wutschitz 2021,
arXiv:2106.02848): for equal noise, the Rényi accountant states an epsilon that is up to half as large again.
"""

import importlib.metadata
import importlib.util
import warnings
from dataclasses import dataclass

import numpy as np

from textcls.errors import InputError, RecipeError
from textcls.settings.recipe import Recipe
from textcls.settings.yaml_text import set_option
from textcls.training.batch_plan import steps_per_epoch


@dataclass(frozen=True)
class Budget:
    """What the steps of a run may reveal about a row, and the noise that keeps them from revealing more.

    Attributes:
        epsilon: of all steps together, as the accountant bounds it; at most `privacy.epsilon`.
        delta: the probability by which that bound may fail.
        accountant: what computed it.
        rows: training rows.
        sampling_rate: the probability with which each row takes part in a step.
        steps: optimizer steps.
        noise_multiplier: standard deviation of the noise, in units of `max_grad_norm`.
        max_grad_norm: what each row's gradient is scaled down to.
    """

    epsilon: float
    delta: float
    accountant: str
    rows: int
    sampling_rate: float
    steps: int
    noise_multiplier: float
    max_grad_norm: float

    @property
    def expected_rows(self) -> float:
        """Rows of a step, on average; the sum of the gradients is divided by it, whatever the step's own rows are."""
        return self.sampling_rate * self.rows

    @property
    def noise(self) -> float:
        """Standard deviation of the noise that is added to each element of the sum of the gradients."""
        return self.noise_multiplier * self.max_grad_norm


def require_opacus() -> None:
    """Does nothing if opacus is installed.

    Raises:
        InputError: it is not.
    """
    if importlib.util.find_spec("opacus") is None:
        raise InputError(
            "privacy.epsilon is set, and opacus is not installed", todo="pip install 'textcls[dp]', on every node"
        )


def budget_of(recipe: Recipe, rows: int) -> Budget:
    """The budget of a recipe with `privacy.epsilon`; takes seconds, for many steps up to minutes.

    Args:
        recipe: the resolved recipe.
        rows: training rows.

    Raises:
        RecipeError: delta is so large that a row may be published.
    """
    from opacus.accountants import PRVAccountant
    from opacus.accountants.utils import get_noise_multiplier

    train, privacy = recipe.train, recipe.privacy
    assert privacy.epsilon is not None
    delta = 1 / (2 * rows) if privacy.delta == "auto" else privacy.delta
    if delta >= 1 / rows:
        raise RecipeError(
            f"privacy.delta is {delta:g}: publishing one of the {rows:,} training rows would satisfy it",
            expected=f"less than 1 / training rows, {1 / rows:.2g}",
            todo=set_option("privacy.delta", "auto"),
        )
    rate = min(1.0, train.rows_per_step / rows)
    steps = steps_per_epoch(rows, train.rows_per_step) * train.epochs
    accountant = PRVAccountant()
    with warnings.catch_warnings(), np.errstate(divide="ignore"):  # of its first guesses, and of the logarithm of 1 - 1
        warnings.simplefilter("ignore")
        multiplier = get_noise_multiplier(
            target_epsilon=privacy.epsilon, target_delta=delta, sample_rate=rate, steps=steps, accountant="prv"
        )
        accountant.history = [(multiplier, rate, steps)]
        epsilon = float(accountant.get_epsilon(delta))
    return Budget(
        epsilon=epsilon,
        delta=delta,
        accountant=f"PRV, opacus {importlib.metadata.version('opacus')}",
        rows=rows,
        sampling_rate=rate,
        steps=steps,
        noise_multiplier=float(multiplier),
        max_grad_norm=privacy.max_grad_norm,
    )
