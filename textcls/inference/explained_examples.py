"""The examples of a report -> the same with what each word does to the score.

In: a classifier, examples with their texts as the report has them, and the inputs whole. Out: examples with `words` and
`explained`. Not here: which rows are examples (slices/), the effects of words (explain.py).
"""

from collections.abc import Sequence

from textcls.inference.classifier import Classifier
from textcls.inference.encoding import ItemError
from textcls.inference.explain import Word, explain, merged
from textcls.reporting.report import ExampleRow, WordEffect
from textcls.text.text_input import TextInput

# A report shows about 100 words of a text: of a longer one, neighbours are left out together.
_MOST_LEFT_OUT = 128


def with_words(
    classifier: Classifier, examples: Sequence[ExampleRow], inputs: Sequence[TextInput]
) -> tuple[ExampleRow, ...]:
    """The examples, explained by leaving out each word; one that cannot be scored stays as it is.

    Args:
        classifier: what is explained.
        examples: with `texts`, which may be cut: words beyond the cut are left out.
        inputs: of the examples, whole.
    """
    scores = classifier.scores(inputs)
    found = []
    for i, (example, one) in enumerate(zip(examples, inputs, strict=True)):
        if scores.errors[i] is None:
            label = label_to_explain(example, [name for name, _ in scores.ranked(i)])
            (explained,) = explain(classifier, [one], labels=[label], most_left_out=_MOST_LEFT_OUT)
            if not isinstance(explained, ItemError):
                words = _shown(merged(explained[0].words, one.segments), example.texts or (), one.segments)
                example = example.model_copy(update={"words": words, "explained": label})
        found.append(example)
    return tuple(found)


def label_to_explain(example: ExampleRow, names: Sequence[str]) -> str:
    """The label that says most about an example.

    Of a mistake: the most probable label that is given wrongly, or else the most probable one that is missed. Of a
    right answer: the least sure label that is given, or the most probable one where none is.

    Args:
        example: a mistake or a right answer.
        names: of all labels, the most probable one first.
    """
    given = [name for name in names if name in example.predicted]
    if example.kind == "unsure_right":
        return (given or names[:1])[-1]
    wrong = [name for name in given if name not in example.labels]
    missed = [name for name in names if name in example.labels and name not in given]
    return (wrong or missed or names)[0]


def _shown(words: Sequence[Word], texts: Sequence[str], segments: Sequence[str]) -> tuple[WordEffect, ...]:
    """The words that lie in the texts as they are shown; a text that was cut ends with a sign that is not its own."""
    ends = [len(text) if text == whole else len(text) - 1 for text, whole in zip(texts, segments, strict=True)]
    return tuple(
        WordEffect(text=word.text, start=word.start, end=word.end, effect=word.effect)
        for word in words
        if word.end <= ends[word.text]
    )
