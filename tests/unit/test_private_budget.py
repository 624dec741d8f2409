"""What private training costs and refuses: the noise of an epsilon, the mode's defaults, what cannot go with it."""

import importlib.util
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from tests.unit.reading import options
from textcls.errors import InputError, RecipeError
from textcls.manifest import Calibration
from textcls.settings.privacy import private_defaults
from textcls.settings.recipe import Recipe
from textcls.settings.recipe_file import parse_recipe
from textcls.training.private.budget import Budget, budget_of, require_opacus
from textcls.training.private.disclosure import budget_lines, not_covered, stated

DEFAULTS = private_defaults("biases")
PRIVATE = "privacy.epsilon=8"
ROOT = Path(__file__).parents[2]


def defaults(recipe: Recipe) -> dict[str, dict[str, Any]]:
    return {name: {key: getattr(getattr(recipe, name), key) for key in keys} for name, keys in DEFAULTS.items()}


def test_private_training_has_defaults_of_its_own_where_the_recipe_names_none() -> None:
    assert defaults(parse_recipe("", [PRIVATE])) == DEFAULTS
    assert defaults(parse_recipe("train:\nmodel: {pretrained: x}\n", [PRIVATE])) == DEFAULTS
    assert defaults(Recipe()) == defaults(parse_recipe("", [])) != DEFAULTS
    named = parse_recipe("train: {epochs: 3}\ncalibration: {temperature: true}\n", [PRIVATE, "model.dropout=0.1"])
    assert (named.train.epochs, named.train.rows_per_step) == (3, DEFAULTS["train"]["rows_per_step"])
    assert named.calibration.temperature
    assert named.model.dropout == 0.1
    of_all = parse_recipe("privacy: {weights: all}", [PRIVATE])
    assert defaults(of_all) == private_defaults("all")
    assert of_all.train.learning_rate < DEFAULTS["train"]["learning_rate"]
    for wrong in ("none", "[all]", "{all: 1}", "null"):
        with pytest.raises(RecipeError, match=r"privacy\.weights"):
            parse_recipe("", [PRIVATE, f"privacy.weights={wrong}"])


def test_a_resolved_private_recipe_is_written_and_read_again() -> None:
    recipe = parse_recipe("", [PRIVATE, "train.epochs=3"])
    written = recipe.model_dump(mode="json")
    assert written["train"]["rows_per_step"] == DEFAULTS["train"]["rows_per_step"]
    assert Recipe.model_validate(written) == recipe
    assert "privacy" not in Recipe().model_dump(), "the fingerprints of other recipes stay as they were"


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.class_weights=balanced"],
        ["train.patience=2"],
        ["train.precision=bf16"],
        ["train.precision=auto"],
        ["text.on_long=windows"],
    ],
)
def test_what_is_not_private_comes_with_the_setting_that_is(overrides: list[str]) -> None:
    with pytest.raises(RecipeError, match=r"cannot be combined with privacy\.epsilon") as caught:
        parse_recipe("", [PRIVATE, *overrides])
    advised = options(caught.value.todo)
    assert parse_recipe("", [PRIVATE, *overrides, *advised]).privacy.epsilon == 8
    assert parse_recipe("", overrides).privacy.epsilon is None


def test_the_accountant_s_epsilon_is_at_most_the_one_asked_for_and_uses_it() -> None:
    recipe = parse_recipe("", [PRIVATE, "train.rows_per_step=100", "train.epochs=3"])
    budget = budget_of(recipe, 1000)
    assert (budget.rows, budget.sampling_rate, budget.steps) == (1000, 0.1, 30)
    assert budget.delta == 1 / 2000
    assert 7.9 < budget.epsilon <= 8
    assert budget.expected_rows == 100
    assert budget.noise == pytest.approx(budget.noise_multiplier * 0.1)
    stricter = budget_of(
        recipe.model_copy(update={"privacy": recipe.privacy.model_copy(update={"epsilon": 2.0})}), 1000
    )
    assert stricter.noise_multiplier > budget.noise_multiplier
    assert stricter.epsilon <= 2


def test_a_batch_of_more_rows_than_there_are_takes_all_of_them() -> None:
    budget = budget_of(parse_recipe("", [PRIVATE, "train.epochs=3"]), 50)
    assert (budget.sampling_rate, budget.steps, budget.expected_rows) == (1.0, 3, 50)
    # Without sampling the bound has a closed form (Balle, Wang 2018, theorem 8): delta of epsilon and mean.
    mean, epsilon = 3**0.5 / budget.noise_multiplier, budget.epsilon
    delta = norm.cdf(mean / 2 - epsilon / mean) - np.exp(epsilon) * norm.cdf(-mean / 2 - epsilon / mean)
    assert delta == pytest.approx(budget.delta, rel=0.03)


def test_a_delta_that_allows_to_publish_a_row_comes_with_one_that_does_not() -> None:
    small = ["train.rows_per_step=10", "train.epochs=1"]
    with pytest.raises(RecipeError, match="publishing one of the 20 training rows would satisfy it") as caught:
        budget_of(parse_recipe("", [PRIVATE, *small, "privacy.delta=0.1"]), 20)
    assert budget_of(parse_recipe("", [PRIVATE, *small, *options(caught.value.todo)]), 20).delta == 1 / 40


def test_opacus_can_be_installed_as_advised(monkeypatch: pytest.MonkeyPatch) -> None:
    require_opacus()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="opacus is not installed") as caught:
        require_opacus()
    assert "pip install 'textcls[dp]'" in caught.value.todo
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert extras["dp"] == ["opacus>=1.6,<1.7"]


BUDGET = Budget(7.9, 1e-4, "PRV", 5000, 0.2, 100, 1.25, 0.1)


def test_the_budget_is_shown_with_the_settings_that_the_mode_would_choose() -> None:
    lines = budget_lines(BUDGET, parse_recipe("", [PRIVATE, "train.epochs=3"]))
    assert lines[0] == (
        "private training: epsilon 7.90, delta 0.0001 for each row; noise multiplier 1.250, 100 steps of 1,000 rows on "
        "average"
    )
    assert "train.rows_per_step 1024" in lines[1]
    assert "train.epochs" not in lines[1]
    assert [options(line) for line in lines[2:]] == [[f"train.epochs={DEFAULTS['train']['epochs']}"]]


def test_steps_of_more_rows_than_there_are_come_with_a_note() -> None:
    said = budget_lines(replace(BUDGET, rows=238, sampling_rate=1.0), parse_recipe("", [PRIVATE]))
    assert "1,024 is more than the 238 training rows: every row takes part in every step" in said[-1]


def test_a_bundle_states_its_bound_and_what_the_bound_leaves_open() -> None:
    found = stated(BUDGET, Calibration())
    assert (found.epsilon, found.delta, found.unit, found.steps) == (7.9, 1e-4, "row", 100)
    assert not any("temperature" in sentence for sentence in found.not_covered)
    fitted = not_covered(Calibration(temperature=1.2, threshold=0.5))
    assert any("the temperature and the score thresholds, which are fitted to validation rows" in one for one in fitted)
