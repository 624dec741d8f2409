"""Explanations of rows -> columns of a table, and back.

In: inputs and a classifier; later, tables of parts. Out: the columns `texts` and `explanations`,
masked; the rows of the page.
Not here: computing explanations (inference/explain.py), the other columns (prediction_rows.py), the page
(reporting/explanation_page.py).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from textcls.inference.classifier import Classifier
from textcls.inference.encoding import ItemError
from textcls.inference.explain import Explanation, Method, Word, explain, merged
from textcls.reporting.explanation_page import ExplainedRow
from textcls.text.masks import masker_of
from textcls.text.text_input import TextInput
from textcls.text.words import TextSpan

_SPAN = [("text", pa.int8()), ("start", pa.int32()), ("end", pa.int32())]
_WORD = pa.struct([*_SPAN, ("word", pa.string()), ("effect", pa.float32()), ("score_without", pa.float32())])
_EXPLANATION = pa.struct(
    [
        ("label", pa.string()),
        ("score", pa.float32()),
        ("logit", pa.float32()),
        ("words", pa.list_(_WORD)),
        ("unseen", pa.list_(pa.struct(_SPAN))),
        ("words_at_once", pa.int32()),
        ("rest", pa.float32()),
        ("remainder", pa.float32()),
        ("steps", pa.int32()),
        ("baseline", pa.string()),
        ("baseline_logit", pa.float32()),
    ]
)
COLUMNS = (("texts", pa.list_(pa.string())), ("explanations", pa.list_(_EXPLANATION)))
"""Names and types of the columns; null in rows that cannot be scored."""


@dataclass(frozen=True)
class Explaining:
    """What a job explains; picklable.

    Attributes:
        method: of `explain`.
        labels: names of the labels to explain in every row; None for those that are answered.
        rows: explain this many rows, the first ones; None for all.
    """

    method: Method = "leave_one_out"
    labels: tuple[str, ...] | None = None
    rows: int | None = None

    def columns(self, classifier: Classifier, errors: Sequence[str | None], inputs: Sequence[TextInput]) -> list[Any]:
        """The arrays of `COLUMNS`, with a row for each of `errors`; those without an error have an input."""
        mask = masker_of(classifier.bundle.manifest.text)
        inputs = [one.changed(mask) for one in inputs]  # the model reads a placeholder as what it stands for
        explained = explain(classifier, inputs, labels=self.labels, method=self.method)
        of_inputs = iter(zip(inputs, explained, strict=True))
        texts: list[Sequence[str] | None] = []
        explanations: list[list[dict[str, Any]] | None] = []
        for error in errors:
            one, found = next(of_inputs) if error is None else (TextInput(""), None)
            if found is None or isinstance(found, ItemError):
                texts.append(None)
                explanations.append(None)
            else:
                texts.append(one.segments)
                explanations.append([_as_cells(each, one.segments) for each in found])
        return [pa.array(cells, kind) for cells, (_, kind) in zip((texts, explanations), COLUMNS, strict=True)]


def _as_cells(explanation: Explanation, segments: Sequence[str]) -> dict[str, Any]:
    """An explanation as Arrow has it; the words with their characters."""
    words = [vars(word) | {"word": segments[word.text][word.start : word.end]} for word in explanation.words]
    cells = vars(explanation) | {"words": words, "unseen": [span._asdict() for span in explanation.unseen]}
    return cells if explanation.method == "integrated_gradients" else cells | {"rest": None}


def explained_rows(tables: Iterable[pa.Table], method: Method) -> Iterator[ExplainedRow]:
    """The rows of parts as a page shows them, in order."""
    for table in tables:
        for row in table.select(
            ["file", "line", "error", "unknown_tokens", *(name for name, _ in COLUMNS)]
        ).to_pylist():
            texts = row["texts"] or []
            yield ExplainedRow(
                file=row["file"],
                line=row["line"],
                texts=texts,
                explanations=[_from_cells(one, texts, method) for one in row["explanations"] or ()],
                error=row["error"],
                unknown_tokens=row["unknown_tokens"] or 0,
            )


def _from_cells(cells: dict[str, Any], texts: Sequence[str], method: Method) -> Explanation:
    """An explanation as it is shown."""
    words = [Word(**{name: value for name, value in word.items() if name != "word"}) for word in cells["words"]]
    shown = {"words": tuple(merged(words, texts)), "unseen": tuple(TextSpan(**span) for span in cells["unseen"])}
    return Explanation(method=method, **(cells | shown | {"rest": cells["rest"] or 0.0}))
