"""Inputs -> whether their explanations are faithful: comprehensiveness and sufficiency, beside a random order of words.

In: a classifier and inputs. Out: `Faithfulness`, sums that add up over inputs. Not here: the explanations (explain.py).

As ERASER defines them (DeYoung et al. 2020): comprehensiveness is what the score of the explained label loses without
the words with the greatest effects, sufficiency what it loses with these words alone. Both are means over the greatest
1, 5, 10, 20 and 50 % of the words, at least one. A faithful explanation has a high comprehensiveness and a sufficiency
near 0 or below. What is high depends on the classifier and the texts: a random order of the same words says it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Self

import numpy as np

from textcls.inference.classifier import Classifier
from textcls.inference.encoding import ItemError
from textcls.inference.explain import Method, explain
from textcls.inference.located import Located, locate
from textcls.text.text_input import TextInput

SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)
"""Of the words of an input, which are left out, or left alone."""


@dataclass(frozen=True)
class Faithfulness:
    """Sums over explained labels of inputs.

    Attributes:
        explanations: how many.
        sums: comprehensiveness and sufficiency of the explanations, and of a random order.
    """

    explanations: int = 0
    sums: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    def __add__(self, other: Self) -> "Faithfulness":
        added = [one + two for one, two in zip(self.sums, other.sums, strict=True)]
        return Faithfulness(self.explanations + other.explanations, (added[0], added[1], added[2], added[3]))

    def as_json(self, method: Method) -> dict[str, Any]:
        """The means, as a report has them."""
        names = ("comprehensiveness", "sufficiency", "random_comprehensiveness", "random_sufficiency")
        means = {name: total / max(self.explanations, 1) for name, total in zip(names, self.sums, strict=True)}
        return {"method": method, "explanations": self.explanations, **means}


def faithfulness(
    classifier: Classifier, inputs: Sequence[TextInput | str], *, method: Method = "leave_one_out"
) -> Faithfulness:
    """How faithful the explanations of the labels are that the classifier answers.

    Inputs that cannot be scored do not count, nor do those of one word, or of so many that several were left out
    together.
    """
    found = Faithfulness()
    explained = explain(classifier, inputs, method=method)
    for located, explanations in zip(locate(classifier, inputs), explained, strict=True):
        if isinstance(located, ItemError) or isinstance(explanations, ItemError) or len(located.words) < 2:
            continue
        seed = int.from_bytes(blake2b("\n".join(located.segments).encode(), digest_size=8).digest())
        chance = np.random.default_rng(seed).random(len(located.words))
        for one in explanations:
            if one.words_at_once == 1:
                effects = np.array([word.effect for word in one.words])
                label = classifier.labels.index(one.label)
                own, by_chance = losses(classifier, located, label, [effects, chance]).tolist()
                found += Faithfulness(1, (own[0], own[1], by_chance[0], by_chance[1]))
    return found


def losses(classifier: Classifier, located: Located, label: int, effects: Sequence[np.ndarray]) -> np.ndarray:
    """float64 [n, 2]: comprehensiveness and sufficiency of each of n explanations of one label.

    Args:
        classifier: scores the input without words.
        located: an input.
        label: number of the label.
        effects: for each explanation, the effect of each word.
    """
    variants = [located.encoded]
    for of_words in effects:
        order = np.argsort(-of_words, kind="stable").tolist()
        for share in SHARES:
            greatest = math.ceil(share * len(order))
            variants += [located.without(order[:greatest]), located.without(order[greatest:])]
    scores = classifier.score_encoded(variants).probabilities[:, label].astype(np.float64)
    means: np.ndarray = (scores[0] - scores[1:]).reshape(len(effects), len(SHARES), 2).mean(axis=1)
    return means
