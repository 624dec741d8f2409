"""What is said about the privacy of a run: its budget, what epsilon does not cover, other runs on the same rows.

In: the budget, the recipe, the directory beside which other runs lie. Out: the part of a bundle's manifest, and lines
for the user. Not here: the budget (budget.py), where these things are written (results.py, export.py).
"""

from textcls.manifest import Calibration, Privacy
from textcls.settings.privacy import private_defaults
from textcls.settings.recipe import Recipe
from textcls.settings.yaml_text import set_option
from textcls.training.private.budget import Budget
from textcls.training.run_dir import RunDir

# Directories beside a run's that are looked into.
_MOST_NEIGHBOURS = 1000


def not_covered(calibration: Calibration) -> tuple[str, ...]:
    """What may still reveal something about rows, one sentence each.

    Args:
        calibration: of the bundle; fitted to validation rows.
    """
    fitted = ["the temperature"] if calibration.temperatures or calibration.temperature != 1 else []
    fitted += ["the score thresholds"] if calibration.thresholds or calibration.threshold else []
    of_validation = f" So do {' and '.join(fitted)}, which are fitted to validation rows." if fitted else ""
    return (
        "Epsilon is about one row: several rows with the text of one person reveal more about them.",
        "Epsilon is about training rows: the metrics come from test rows." + of_validation,
        "The label names, the number of training rows and the split are not protected.",
        "The report, events.jsonl (training losses) and the files about rows are as confidential as the rows.",
        "Every run spends its own epsilon. Those of all runs on the same rows add up, also of runs to choose settings.",
        "Noise is computed in double precision; the proof assumes real numbers (Mironov 2012).",
    )


def stated(budget: Budget, calibration: Calibration) -> Privacy:
    """What a bundle says about its privacy."""
    return Privacy(
        epsilon=budget.epsilon,
        delta=budget.delta,
        accountant=budget.accountant,
        sampling_rate=budget.sampling_rate,
        steps=budget.steps,
        noise_multiplier=budget.noise_multiplier,
        max_grad_norm=budget.max_grad_norm,
        not_covered=not_covered(calibration),
    )


def budget_lines(budget: Budget, recipe: Recipe) -> list[str]:
    """The budget and the settings of private training, for people."""
    steps = f"{budget.steps:,} steps of {budget.expected_rows:,.0f} rows on average"
    noise = f"noise multiplier {budget.noise_multiplier:.3f}, {steps}"
    lines = [f"private training: epsilon {budget.epsilon:.2f}, delta {budget.delta:.2g} for each row; {noise}"]
    values = {
        f"{section}.{key}": (getattr(getattr(recipe, section), key), default)
        for section, defaults in private_defaults(recipe.privacy.weights).items()
        for key, default in defaults.items()
    }
    own = ", ".join(f"{key} {found}" for key, (found, default) in values.items() if found == default)
    if own:
        lines.append(f"  its defaults: {own}")
    for key, (found, default) in values.items():
        if found != default:
            lines.append(
                f"  note: the recipe sets {key} to {found}; private training would: {set_option(key, default)}"
            )
    if recipe.train.rows_per_step > budget.rows:
        lines.append(
            f"  note: train.rows_per_step {recipe.train.rows_per_step:,} is more than the {budget.rows:,} training "
            "rows: every row takes part in every step"
        )
    return lines


def other_runs(run: RunDir, fingerprint: str) -> tuple[str, ...]:
    """The runs beside this one's directory that used the same rows, one sentence each; no others can be known.

    Args:
        run: the run, whose own directory is left out.
        fingerprint: of the clean rows.
    """
    found = []
    for name, identity in run.neighbours(_MOST_NEIGHBOURS):
        if identity.get("data") == fingerprint:
            of_other = identity.get("privacy") or {}
            spent = f"with epsilon {of_other['epsilon']:.2f}" if of_other else "without privacy"
            found.append(f"{name} was trained on the same rows {spent}.")
    return tuple(found)
