"""Explanations beside an evaluation: the words of its examples, and whether those of a sample of rows are faithful.

In: examples with their inputs; blocks of rows. Out: examples with words; `SampleFaithfulness`. Both are side products:
an error costs the evaluation nothing else. Not here: the explanations themselves (inference/).
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import pyarrow as pa

from textcls.batch.actor_pool import PoolSize, run_on_pool
from textcls.bundle import Bundle
from textcls.data.row_tables import inputs_of, sample_mask
from textcls.errors import one_line
from textcls.inference.classifier import Classifier
from textcls.inference.explained_examples import with_words
from textcls.inference.faithfulness import Faithfulness, faithfulness
from textcls.reporting.report import ExampleRow
from textcls.text.text_input import TextInput


@dataclass(frozen=True)
class SampleFaithfulness:
    """Sums over the explanations of a sample of rows, or why there are none.

    Attributes:
        faithfulness: of all rows so far.
        error: the first one; "" if there was none.
    """

    faithfulness: Faithfulness = field(default_factory=Faithfulness)
    error: str = ""

    @classmethod
    def of(cls, classifier: Classifier, rows: pa.Table, share: float) -> Self:
        """What explanations of about this share of the rows are worth, or the error that this raises."""
        if not share:
            return cls()
        try:
            return cls(faithfulness(classifier, inputs_of(rows.filter(pa.array(sample_mask(rows, share))))))
        except Exception as error:
            return cls(error=one_line(error))

    def __add__(self, other: Self) -> Self:
        return type(self)(self.faithfulness + other.faithfulness, self.error or other.error)

    def found(self) -> Faithfulness:
        """The sums.

        Raises:
            RuntimeError: there was an error.
        """
        if self.error:
            raise RuntimeError(self.error)
        return self.faithfulness


def explained_examples(
    examples: Sequence[ExampleRow], inputs: Sequence[TextInput], size: PoolSize, bundle: Bundle
) -> tuple[ExampleRow, ...]:
    """The examples with words, computed by one actor.

    Args:
        examples: of a report with texts.
        inputs: of the examples, whole.
        size: of the pool that scored the rows.
        bundle: what scored them.

    Raises:
        TextclsError: see `run_on_pool`.
    """
    work = _ExplainExamples(tuple(examples))
    ((_, found),) = run_on_pool(work, [list(inputs)], replace(size, count=1), bundle, on_rows=lambda rows: None)
    return tuple(found)


@dataclass(frozen=True)
class _ExplainExamples:
    """Explains all examples as one item of a pool."""

    examples: tuple[ExampleRow, ...]

    def __call__(self, classifier: Classifier, inputs: list[TextInput]) -> Generator[int, None, tuple[ExampleRow, ...]]:
        """Yields the number of inputs; returns the examples with words."""
        found = with_words(classifier, self.examples, inputs)
        yield len(inputs)
        return found
