"""The settings of differentially private training, and what else changes where it is on.

In: plain values of a recipe. Out: a `PrivacySpec`; the same values with the defaults of private training for settings
that the recipe does not name; what cannot be combined with it.
Not here: the noise that epsilon needs (training/private/budget.py).
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator

from textcls.settings.spec import Spec, UnfitError
from textcls.settings.yaml_text import set_option

Weights = Literal["biases", "all"]

_RATES: dict[Weights, float] = {"biases": 1e-2, "all": 1e-3}


def private_defaults(weights: Weights) -> dict[str, dict[str, Any]]:
    """Section -> setting -> its default in private training of these weights.

    Noise is added once a step, whatever the number of rows, so large batches have less of it per row; the rest is what
    Li et al. 2022 found for language models, and a higher rate for biases, as Bu et al. 2022 have.
    """
    train = {
        "epochs": 20,
        "rows_per_step": 1024,
        "learning_rate": _RATES[weights],
        "weight_decay": 0.0,
        "warmup_fraction": 0.0,
        "precision": "fp32",
    }
    return {"model": {"dropout": 0.0}, "train": train, "calibration": {"temperature": False}}


class PrivacySpec(Spec):
    """Differentially private training: a bound on what the model can reveal about any single training row. Needs the
    extra `dp`. Other defaults then hold for `model.dropout` (0), `train.epochs` (20), `train.rows_per_step` (1024),
    `train.learning_rate` (0.01, or 0.001 for all weights), `train.weight_decay` (0), `train.warmup_fraction` (0),
    `train.precision` (fp32) and `calibration.temperature` (false). Embedding tables are not trained."""

    epsilon: float | None = Field(None, ge=0.1, le=1000)
    """The bound: with one row more or less, no outcome becomes more than exp(epsilon) times as probable, but for
    `delta`. 8 is what much published work reports, 3 protects better and 1 strongly; a smaller one needs more noise,
    and costs accuracy where rows are few. The row is the unit: ten rows of one person have ten times the epsilon.
    Default: train without privacy."""
    weights: Weights = "biases"
    """What is trained. `biases`: the encoder's biases and the scales of its norms, a thousandth of its weights, and the
    head. Each trained weight has noise of its own, so this is better with thousands of rows. `all`: all weights but
    embedding tables, for hundreds of thousands of rows."""
    delta: Annotated[float, Field(gt=0, lt=1)] | Literal["auto"] = "auto"
    """The probability by which that bound may fail. `auto`: 1 / (2 x training rows)."""
    max_grad_norm: float = Field(0.1, gt=0)
    """The gradient of each row is scaled down to this norm, in place of `train.max_grad_norm`, and the noise is
    proportional to it. AdamW scales gradients anyway, so it matters little as long as most rows are scaled."""

    @field_validator("epsilon", mode="before")
    @classmethod
    def _is_a_budget(cls, value: object) -> object:
        try:
            fits = value is None or isinstance(value, bool) or 0.1 <= float(str(value)) <= 1000
        except ValueError:
            fits = False
        if not fits:
            todo = f"{set_option('privacy.epsilon', 8)} is usual; without the setting, training is not private"
            raise UnfitError("expected a number from 0.1 to 1000", todo=todo)
        return value


def with_private_defaults(content: object) -> object:
    """The content of a recipe with the defaults of private training for settings that it does not name.

    Args:
        content: section -> its settings, as they are given; anything that is not such a mapping is returned as it is.
    """
    if not isinstance(content, dict) or _given(content.get("privacy")).get("epsilon") is None:
        return content
    weights = _given(content.get("privacy")).get("weights", "biases")
    if weights not in get_args(Weights):
        return content  # refused where the section is checked
    sections = {name: defaults | _given(content.get(name)) for name, defaults in private_defaults(weights).items()}
    return content | {name: section for name, section in sections.items() if _is_section(content.get(name))}


def _is_section(section: object) -> bool:
    return section is None or isinstance(section, (dict, Spec))


def _given(section: object) -> dict[str, Any]:
    """The settings that a section names, as a mapping or as a checked section; {} for anything else."""
    if isinstance(section, Spec):
        return section.model_dump(exclude_unset=True)
    return section if isinstance(section, dict) else {}


def refuse_unprivate(sections: Mapping[str, Any]) -> None:
    """Refuses settings that cannot be combined with private training.

    Args:
        sections: of a recipe.

    Raises:
        UnfitError: with the override that makes them fit.
    """
    if sections["privacy"].epsilon is None:
        return
    for key, why, instead in (
        ("train.class_weights", "weights that are counted from the labels are not private", "none"),
        ("train.patience", "the run takes all steps that epsilon was computed for, and keeps the last", None),
        ("train.precision", "in bf16 a row could exceed privacy.max_grad_norm by rounding", "fp32"),
        ("text.on_long", "the windows of a row would be scaled down one by one, and epsilon hold for none", "truncate"),
    ):
        section, _, name = key.partition(".")
        found = getattr(sections[section], name)
        if found != instead and (key, found) != ("text.on_long", "error"):
            also = "; textcls rebundle makes the bundle score long texts whole afterwards" * (key == "text.on_long")
            raise UnfitError(
                f"{key} {found} cannot be combined with privacy.epsilon: {why}", todo=set_option(key, instead) + also
            )
