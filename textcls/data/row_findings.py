"""Slices and examples of scored rows, from the blocks of rows that lie in the object store.

In: references of blocks; the sum of the findings. Out: the plan of the slices, made before any row is scored, and the
parts of a report. The same for training and evaluation. Not here: counting (slices/), scoring, explaining
(inference/explained_examples.py).

    cells of each block ─▶ counts ─▶ plan ─▶ workers: `coded_rows`, `RowStudy` ─▶ findings ─▶ `report_parts`
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from textcls.data.row_tables import clean_rows, file_and_line, files_of, input_columns, inputs_of
from textcls.data.slice_columns import facts_of, is_slice
from textcls.reporting.report import ExampleRow, SliceScores
from textcls.settings.recipe import TextSpec
from textcls.slices.findings import Candidate, RowFindings, RowStudy
from textcls.slices.groups import CellCounts, CodedRows, ColumnGroup, FileGroup, SlicePlan
from textcls.slices.summary import summarise_slices
from textcls.text.masks import masker_of
from textcls.text.text_input import TextInput

_TEXT_CHARS = 500


def plan_slices(blocks: Sequence[Any], files: Sequence[str], slices: Sequence[str]) -> SlicePlan:
    """The slices of all rows of some blocks, before they are scored.

    Args:
        blocks: object references of tables with `row_id` and the cells of the slices, in row order.
        files: URI of each file, by index.
        slices: the columns of `report.slices`.
    """
    counted = ray.remote(_counted)
    rows_of_file, columns = Counter[int](), [CellCounts() for _ in slices]
    # In order and one at a time: so the plan does not depend on which block is counted first.
    for ref in [counted.remote(block) for block in blocks]:
        of_files, of_columns = ray.get(ref)
        rows_of_file.update(of_files)
        for total, found in zip(columns, of_columns, strict=True):
            total.add(found)
    return SlicePlan(
        FileGroup.of(files, rows_of_file),
        tuple(map(ColumnGroup.of, slices, columns)),
    )


def _counted(block: pa.Table) -> tuple[Counter[int], list[CellCounts]]:
    """(rows by file, cells of each slice column) of the clean rows of a block."""
    rows = _rows_of(block)
    files, counts = np.unique(files_of(rows), return_counts=True)
    of_columns = [CellCounts.of(rows[name]) for name in rows.column_names if is_slice(name)]
    return Counter(dict(zip(files.tolist(), counts.tolist(), strict=True))), of_columns


def _rows_of(block: pa.Table) -> pa.Table:
    """The rows of a block of a split, or the clean rows of a block as it was read."""
    return clean_rows(block) if "text" in block.column_names else block


def coded_rows(table: pa.Table, plan: SlicePlan, tokens: np.ndarray, truncated: np.ndarray) -> CodedRows:
    """The rows of a table with the numbers of their slices.

    Args:
        table: with `row_id` and the cells of the slices.
        plan: from `plan_slices`.
        tokens: int32 [N], before any cut.
        truncated: bool [N].
    """
    return plan.coded(facts_of(table, tokens, truncated, files_of(table)))


def report_parts(
    study: RowStudy, findings: RowFindings, files: Sequence[str], inputs: Sequence[TextInput] = ()
) -> dict[str, Any]:
    """`slices` and `examples` of a `Report`.

    Args:
        study: what was studied.
        findings: of all rows.
        files: URI of each file, by index.
        inputs: from `example_inputs`; none leave texts out.
    """
    texts = {
        one.row_id: tuple(map(_cut, found.segments))
        for one, found in zip(findings.examples, inputs, strict=bool(inputs))
    }

    def rows(kind: str, candidates: Sequence[Candidate]) -> Iterator[ExampleRow]:
        for one in candidates:
            file, line = file_and_line(one.row_id)
            found: dict[str, Any] = {"kind": kind, "file": files[file], "line": line, "score": one.score}
            found |= {"labels": one.labels, "predicted": one.predicted}
            yield ExampleRow(**found | ({"texts": texts[one.row_id]} if one.row_id in texts else {}))

    return {
        "slices": SliceScores.model_validate(summarise_slices(study, findings)),
        "examples": (*rows("confident_mistake", findings.mistakes), *rows("unsure_right", findings.unsure)),
    }


def example_inputs(findings: RowFindings, sources: Sequence[tuple[Any, Any]], text: TextSpec) -> list[TextInput]:
    """The inputs of the examples that `report_parts` makes, in order; only these few rows leave their nodes.

    They are masked: the model reads a placeholder as it reads what the placeholder stands for.

    Args:
        findings: of all rows.
        sources: object references of (rows with `row_id`, their inputs in the same order).
        text: says what is masked.
    """
    mask = masker_of(text)
    looked_up, row_ids = ray.remote(_inputs_in), {one.row_id for one in findings.examples}
    found: dict[int, TextInput] = {}
    for inputs in ray.get([looked_up.remote(rows, inputs, row_ids) for rows, inputs in sources]):
        found |= inputs
    return [found[one.row_id].changed(mask) for one in findings.examples]


def _inputs_in(rows: pa.Table, inputs: pa.Table, row_ids: set[int]) -> dict[int, TextInput]:
    wanted = pc.is_in(rows["row_id"], pa.array(sorted(row_ids), pa.int64()))
    if "text" in rows.column_names:
        wanted = pc.and_(wanted, pc.is_valid(rows["text"]))
    ids = rows["row_id"].filter(wanted).to_pylist()
    return dict(zip(ids, inputs_of(inputs.select(input_columns(inputs)).filter(wanted)), strict=True))


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_CHARS else text[: _TEXT_CHARS - 1] + "…"
