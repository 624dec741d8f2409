"""Inputs -> explanations: how much each word of the user's own text speaks for a label.

In: a classifier and inputs; the labels to explain, by default those that the classifier answers. Out: `Explanation`s,
or why an input has none. Not here: which tokens a word consists of (located.py), the gradients of
`integrated_gradients` (integrated_gradients.py), whether explanations are faithful (faithfulness.py).

Two methods:
  - `leave_one_out`: the change of the label's logit when a word is left out. "Without this word the score falls from
    0.93 to 0.41." Its effects need not add up to anything.
  - `integrated_gradients`: how the logit is made up of the words, beginning from a text of [PAD] alone.

Effects are changes of logits, since probabilities near 0 or 1 hardly change with any word. The logit of a text with
several windows is the mean of theirs, weighted like their probabilities.

Shapes: V variants of an input, W windows, C labels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from textcls.errors import InputError
from textcls.inference.classifier import Classifier
from textcls.inference.encoding import Encoded, ItemError
from textcls.inference.integrated_gradients import attributions
from textcls.inference.located import Located, locate
from textcls.tasks.task import ranked
from textcls.text.text_input import TextInput
from textcls.text.words import TextSpan, runs_without_spaces

Method = Literal["leave_one_out", "integrated_gradients"]

MOST_LEFT_OUT = 512
"""Most variants of an input that `leave_one_out` scores: of a longer text, neighbouring words are left out together."""
# Labels that a message lists.
_LABELS_SHOWN = 10
# Tokens that are scored together; bounds the memory of the variants of many inputs.
_TOKENS_AT_ONCE = 2**17


@dataclass(frozen=True)
class Word:
    """A word of the user's own text and its effect.

    Attributes:
        text: which text of a pair, 0 or 1; 0 for one text.
        start: code points before it in that text, as it was written.
        end: code points up to its end.
        effect: on the logit of the label; above 0 it speaks for the label.
        score_without: the probability of the label without the word; None unless it was left out by itself.
        masked: whether the model reads a placeholder in its place.
    """

    text: int
    start: int
    end: int
    effect: float
    score_without: float | None = None
    masked: bool = False


@dataclass(frozen=True)
class Explanation:
    """Why an input has the score that it has for one label.

    Attributes:
        label: its name.
        method: how the effects were found.
        score: the probability of the label, as the classifier gives it.
        logit: of the label.
        words: those that the model read, in order; several neighbours as one if `words_at_once` is above 1.
        unseen: for each text that was cut, the span that the model did not read: it has no effect.
        words_at_once: neighbouring words that were left out together, since the text has more than `MOST_LEFT_OUT`
            or, in a pair, more than half as many.
        rest: effect of the special tokens; 0 for `leave_one_out`.
        remainder: what the effects and the rest leave over of `logit - baseline_logit`; None for `leave_one_out`.
        steps: steps of the integration; None for `leave_one_out`.
        baseline: the token that each token of the text is compared with; None for `leave_one_out`.
        baseline_logit: the logit of a text of that token alone; None for `leave_one_out`.
    """

    label: str
    method: Method
    score: float
    logit: float
    words: tuple[Word, ...]
    unseen: tuple[TextSpan, ...] = ()
    words_at_once: int = 1
    rest: float = 0.0
    remainder: float | None = None
    steps: int | None = None
    baseline: str | None = None
    baseline_logit: float | None = None


def explain(
    classifier: Classifier,
    inputs: Sequence[TextInput | str],
    *,
    labels: Sequence[str] | None = None,
    method: Method = "leave_one_out",
    most_left_out: int = MOST_LEFT_OUT,
) -> list[list[Explanation] | ItemError]:
    """Explanations of inputs, in the order given, one for each label; or why an input has none.

    Args:
        classifier: what is explained.
        inputs: as `Classifier.scores` takes them.
        labels: names of the labels to explain; left out, those that the classifier answers, and the most probable one
            where it answers none.
        method: see above.
        most_left_out: most variants of an input that `leave_one_out` scores.

    Raises:
        InputError: the bundle has no such label.
    """
    refuse_unknown(labels or (), classifier.labels)
    located = locate(classifier, inputs)
    usable = [one for one in located if isinstance(one, Located)]
    if method == "leave_one_out":
        found = _left_out(classifier, usable, labels, most_left_out)
    else:
        found = (_integrated(classifier, one, labels) for one in usable)
    return [next(found) if isinstance(one, Located) else one for one in located]


def merged(words: Sequence[Word], segments: Sequence[str]) -> list[Word]:
    """The words as they are shown: in text that is written without spaces, neighbours of one sign become one word.

    The effects are added up. A merged word has no `score_without`, since its characters were not left out together.
    What is masked stays a word of its own.

    Args:
        words: of an explanation.
        segments: the texts of the input.
    """
    spans = [TextSpan(word.text, word.start, word.end) for word in words]
    keys = [(np.sign(word.effect), place if word.masked else None) for place, word in enumerate(words)]
    runs = runs_without_spaces(segments, spans, keys)
    return [
        words[run[0]]
        if len(run) == 1
        else Word(words[run[0]].text, words[run[0]].start, words[run[-1]].end, sum(words[i].effect for i in run))
        for run in runs
    ]


def refuse_unknown(labels: Sequence[str], known: Sequence[str]) -> None:
    """Refuses labels that a bundle does not have.

    Raises:
        InputError: there is one.
    """
    for label in labels:
        if label not in known:
            few = ", ".join(map(repr, known[:_LABELS_SHOWN])) + ", ..." * (len(known) > _LABELS_SHOWN)
            raise InputError(f"the bundle has no label {label!r}", expected=f"one of {few}")


def _labels_of(classifier: Classifier, probabilities_C: np.ndarray, asked: Sequence[str] | None) -> Sequence[str]:
    """The labels to explain."""
    if asked is not None:
        return tuple(dict.fromkeys(asked))
    (given,) = classifier.task.names_given(probabilities_C[None], classifier.thresholds, classifier.labels)
    return given or [name for name, _ in ranked(probabilities_C, classifier.labels, 1)]


# --- leave one out ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variants:
    """The variants of an input in which some words are left out: what `leave_one_out` scores.

    Attributes:
        located: the input.
        words: the words of each variant, which follow each other in one text.
        changed: for each, the windows that differ from those of the input.
    """

    located: Located
    words: list[range]
    changed: list[dict[int, Encoded]]

    @classmethod
    def of(cls, located: Located, most: int) -> "Variants":
        """Each word left out, or groups of as many neighbours as it takes to have at most `most` variants."""
        at_once = _words_at_once(located, most)
        groups: list[range] = []
        for text in range(len(located.segments)):
            own = [i for i, word in enumerate(located.words) if word.text == text]
            groups += [range(i, min(i + at_once, own[-1] + 1)) for i in own[::at_once]]
        return cls(located, groups, [located.windows_without(group) for group in groups])

    @property
    def encoded(self) -> list[Encoded]:
        """What the model has to read: the input, and every changed window of every variant."""
        return [self.located.encoded, *(window for changed in self.changed for window in changed.values())]


def _words_at_once(located: Located, most: int) -> int:
    """How many neighbouring words are left out together; each text of a pair has an equal share of the variants."""
    texts = range(len(located.segments))
    of_text = [sum(word.text == text for word in located.words) for text in texts]
    return max(1, -(-max(of_text) // max(1, most // len(texts))))


def _left_out(
    classifier: Classifier, inputs: Sequence[Located], asked: Sequence[str] | None, most: int
) -> Iterator[list[Explanation]]:
    waiting: list[Variants] = []
    tokens = 0
    for i, one in enumerate(inputs, 1):
        variants = Variants.of(one, most)
        waiting.append(variants)
        tokens += sum(encoded.cost for encoded in variants.encoded)
        if tokens >= _TOKENS_AT_ONCE or i == len(inputs):
            logits_WC = classifier.logits([encoded for each in waiting for encoded in each.encoded])
            ends = np.cumsum([sum(len(encoded.windows) for encoded in each.encoded) for each in waiting])
            for each, own_WC in zip(waiting, np.split(logits_WC, ends[:-1]), strict=True):
                yield effects(classifier, each, own_WC.astype(np.float64), asked)
            waiting, tokens = [], 0


def effects(
    classifier: Classifier, variants: Variants, logits_WC: np.ndarray, asked: Sequence[str] | None
) -> list[Explanation]:
    """Explanations from the logits of `variants.encoded`.

    Args:
        classifier: what is explained.
        variants: of an input.
        logits_WC: float64, of all windows of `variants.encoded`, in order.
        asked: labels to explain, see `explain`.
    """
    located = variants.located
    means_VC = _over_windows(variants, logits_WC)
    scores_VC = _over_windows(variants, classifier.task.probabilities(logits_WC))
    # As `Scores` has them, since labels are decided by them.
    scores_VC = scores_VC.astype(np.float32)
    found = []
    for name in _labels_of(classifier, scores_VC[0], asked):
        label = classifier.labels.index(name)
        words = [
            Word(
                located.words[group[0]].text,
                located.words[group[0]].start,
                located.words[group[-1]].end,
                effect=float(means_VC[0, label] - means_VC[variant, label]),
                score_without=float(scores_VC[variant, label]),
                masked=len(group) == 1 and located.words[group[0]].masked,
            )
            for variant, group in enumerate(variants.words, 1)
        ]
        found.append(
            Explanation(
                name,
                "leave_one_out",
                float(scores_VC[0, label]),
                float(means_VC[0, label]),
                tuple(words),
                located.unseen,
                words_at_once=max(map(len, variants.words), default=1),
            )
        )
    return found


def _over_windows(variants: Variants, values_WC: np.ndarray) -> np.ndarray:
    """float64 [V, C]: the mean over the windows of the input, then of each variant; see `mean_over_windows`.

    A variant has the windows of the input but for the changed ones, so its sum is that of the input, corrected.

    Args:
        variants: of an input.
        values_WC: float64, of all windows of `variants.encoded`, in order.
    """
    own = variants.located.encoded.windows
    tokens_W = np.array([len(ids) for ids in own], np.float64)
    sums_VC, tokens_V = [tokens_W @ values_WC[: len(own)]], [tokens_W.sum()]
    place = len(own)
    for changed in variants.changed:
        sum_C, tokens = sums_VC[0].copy(), tokens_V[0]
        for window, encoded in changed.items():
            sum_C += encoded.cost * values_WC[place] - tokens_W[window] * values_WC[window]
            tokens += encoded.cost - tokens_W[window]
            place += 1
        sums_VC.append(sum_C)
        tokens_V.append(tokens)
    means_VC: np.ndarray = np.stack(sums_VC) / np.array(tokens_V)[:, None]
    return means_VC


# --- integrated gradients --------------------------------------------------------------------------------------------


def _integrated(classifier: Classifier, located: Located, asked: Sequence[str] | None) -> list[Explanation]:
    scores = classifier.score_encoded([located.encoded])
    names = _labels_of(classifier, scores.probabilities[0], asked)
    of_text = [[word is not None for word in window] for window in located.word_of]
    found = attributions(classifier, located.encoded, of_text, [classifier.labels.index(name) for name in names])
    places = np.array([-1 if word is None else word for window in located.word_of for word in window])
    by_token_KT = np.concatenate(found.effects, axis=1)
    explanations = []
    for k, name in enumerate(names):
        effects = np.bincount(places[places >= 0], by_token_KT[k, places >= 0], len(located.words)).tolist()
        explanations.append(
            Explanation(
                name,
                "integrated_gradients",
                float(scores.probabilities[0, classifier.labels.index(name)]),
                float(found.logits[k]),
                tuple(
                    Word(span.text, span.start, span.end, effect, masked=span.masked)
                    for span, effect in zip(located.words, effects, strict=True)
                ),
                located.unseen,
                rest=float(by_token_KT[k, places < 0].sum()),
                remainder=float(found.remainders[k]),
                steps=found.steps,
                baseline=found.baseline,
                baseline_logit=float(found.baseline_logits[k]),
            )
        )
    return explanations
