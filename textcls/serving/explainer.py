"""Explanations of inputs over HTTP: leave one word out, as side work of the batcher.

In: an input and the label to explain. Out: its explanations, and the classifier that they are of. Not here: HTTP
(api.py), what an explanation is (inference/explain.py), the share of the model's time (batcher.py).

An explanation of a text costs a text for each of its words and one more. These variants are queued as side work, so
that classifying goes on beside them: they run in small batches, and no more of them are in flight than their share of
the queue.
"""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from textcls.inference.classifier import Classifier
from textcls.inference.encoding import Encoded, ItemError
from textcls.inference.explain import Explanation, Variants, Word, effects, merged
from textcls.inference.located import locate
from textcls.serving.scorer import NotReady, Scorer, Work
from textcls.text.text_input import TextInput
from textcls.text.words import TextSpan


@dataclass(frozen=True)
class Explained:
    """The explanations of an input.

    Attributes:
        explanations: one for each label that was asked for.
        encoded: the input as the model reads it.
        classifier: that they are of.
        texts: what they cost: the input and its variants.
        queue_s: seconds in the queue.
        model_s: seconds from the start of the first batch to the end of the last, others' batches in between included.
    """

    explanations: list[Explanation]
    encoded: Encoded
    classifier: Classifier
    texts: int
    queue_s: float
    model_s: float

    def content(self, one: TextInput) -> dict[str, Any]:
        """The JSON of the answer for the input, as in explain_schema.py."""
        by_score = sorted(self.explanations, key=lambda each: -each.score)
        return {
            "explanations": [
                {
                    "label": each.label,
                    "score": each.score,
                    "logit": each.logit,
                    "words": [
                        {
                            **_span(word),
                            "word": one.segments[word.text][word.start : word.end],
                            "effect": word.effect,
                            "score_without": word.score_without,
                        }
                        for word in merged(each.words, one.segments)
                    ],
                }
                for each in by_score
            ],
            "method": by_score[0].method,
            "unseen": [_span(span) for span in by_score[0].unseen],
            "tokens": self.encoded.tokens,
            "truncated": self.encoded.truncated,
            "unknown_tokens": self.encoded.unknown,
            "model": {"digest": self.classifier.bundle.digest, "precision": self.classifier.precision},
        }


class TooManyWords(Exception):
    """The model reads more words of the input than are explained.

    Attributes:
        words: how many.
        limit: the most that are.
    """

    def __init__(self, words: int, limit: int) -> None:
        super().__init__(f"{words} words; the limit is {limit}")
        self.words, self.limit = words, limit


class UnknownLabel(Exception):
    """The bundle does not have the label; it has those of `args`."""


class Explainer:
    """Explains with the classifier that a scorer has in use. For one event loop.

    Args:
        scorer: whose batcher runs the variants.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        # One input after the other becomes its variants: only then is it known how many there are.
        self._counting = asyncio.Lock()

    async def explain(self, one: TextInput, label: str | None) -> Explained | ItemError:
        """The explanations of an input, or why it cannot be scored.

        Args:
            one: the input.
            label: to explain; None for those that the classifier answers.

        Raises:
            NotReady: no bundle is loaded.
            QueueFull: explanations have their share of the queue, or the queue is more than half full.
            TooManyWords: the input is too long.
            UnknownLabel: the classifier does not have the label.
        """
        scorer, batcher = self._scorer, self._scorer.batcher
        classifier, limit = scorer.classifier, scorer.spec.max_words_to_explain
        if classifier is None:
            raise NotReady
        if label is not None and label not in classifier.labels:
            raise UnknownLabel(*classifier.labels)
        with ExitStack() as room:
            async with self._counting:
                with batcher.side_room(1):  # before any work is done
                    pass
                variants = await scorer.off_loop(_variants, classifier, one, limit)
                if isinstance(variants, ItemError):
                    return variants
                items = variants.encoded
                room.enter_context(batcher.side_room(len(items)))
            costs = [(item, item.cost) for item in items]
            answer = await batcher.outcomes(costs, Work(_logits, classifier), aside=True)
        logits: list[np.ndarray] = []
        for outcome in answer.outcomes:
            if isinstance(outcome, Exception):
                raise outcome
            logits.append(outcome)
        logits_WC, asked = np.concatenate(logits).astype(np.float64), None if label is None else [label]
        found = await scorer.off_loop(effects, classifier, variants, logits_WC, asked)
        return Explained(found, variants.located.encoded, classifier, len(items), answer.queue_s, answer.work_s)


def _variants(classifier: Classifier, one: TextInput, limit: int) -> Variants | ItemError:
    (located,) = locate(classifier, [one])
    if isinstance(located, ItemError):
        return located
    if len(located.words) > limit:
        raise TooManyWords(len(located.words), limit)
    return Variants.of(located, max(len(located.segments) * limit, 1))


def _span(part: Word | TextSpan) -> dict[str, int]:
    return {"text": part.text, "start": part.start, "end": part.end}


def _logits(classifier: Classifier, items: list[Encoded]) -> Sequence[np.ndarray]:
    """For each item, float32 [W, C]: the logits of its windows."""
    logits_WC = classifier.logits(items)
    ends = np.cumsum([0, *(len(item.windows) for item in items)])
    return [logits_WC[start:end] for start, end in pairwise(ends.tolist())]
