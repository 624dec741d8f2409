"""What the user reads about the rows: what was read, what was rejected, how the splits turned out.

In: `ReadRows`, `PreparedData`. Out: one line at a time, and the check of rows that cannot be used. Not here: which rows
are fit (checks.py), what to do about rejects (remedies.py), printing.
"""

from collections.abc import Iterator, Mapping

from textcls.data import checks
from textcls.data.csv_layout import layout_notes
from textcls.data.decisions import DROP, KEEP, RELABEL
from textcls.data.label_columns import several_labels_warnings, together_warnings
from textcls.data.prepared_rows import PreparedData
from textcls.data.read import ReadRows
from textcls.data.remedies import remedy
from textcls.data.row_tables import file_and_line
from textcls.data.rows import Reason, shown
from textcls.data.spellings import first_few
from textcls.data.summary import RowSummary
from textcls.data.token_limits import suggestion
from textcls.reporting.terminal import SOME_UNKNOWN
from textcls.settings.recipe import TextSpec
from textcls.settings.yaml_text import set_option
from textcls.text.masks import masker_of


def read_lines(read: ReadRows) -> Iterator[str]:
    """What was read, how files were interpreted, and rejects by reason, most frequent first."""
    found, files, data = read.summary, len(read.files), read.data
    filters = " or ".join(["outside data.where"] * bool(data.where) + ["in data.where_not"] * bool(data.where_not))
    yield (
        f"read {found.read:,} rows from {files:,} file{'s' if files != 1 else ''} "
        f"(delimiter {read.csv_files.layouts[0].delimiter!r}) in {read.seconds:.1f} s"
        + (f"; {found.outside_where:,} others are {filters}" if found.outside_where else "")
    )
    for note in layout_notes(read.csv_files.layouts):
        yield f"  note: {note}"
    for reason, rows in found.reasons.most_common():
        if reason == Reason.EXCLUDED:
            continue
        yield f"  rejected {rows:,}: {reason}, like {_examples(read, reason)[0]}"

    yield from _exclusion_lines(read)


def decision_lines(rows: Mapping[str, int]) -> Iterator[str]:
    """What `data.decisions` changed; `rows` is from `decisions.rows_decided`."""
    if rows:
        yield (
            f"  decisions: kept {rows[KEEP]:,} rows, dropped {rows[DROP]:,}, gave another label to {rows[RELABEL]:,}"
        )


def _exclusion_lines(read: ReadRows) -> Iterator[str]:
    """What `data.exclude` took out, and which of its entries no row met; no line holds a key or a text."""
    exclusion, done = read.exclusion, read.excluded
    if exclusion is None or done is None:
        return
    yield (
        f"  excluded {done.rows:,} rows by {done.entries:,} entries of data.exclude (digest {done.digest[:12]}; the "
        "manifest of the bundle has all of it)"
    )
    if not done.entries:
        yield "  warning: the files of data.exclude hold no entry: if rows were to be taken out, none was"
    nearly = read.summary.nearly_excluded
    unmet = exclusion.unmet(read.summary.excluded)
    gone = [exclusion.places[number] for number in unmet if not nearly.get(str(number))]
    if gone:
        yield f"  {len(gone):,} entries match no row, as if they were deleted before: {first_few(gone)}"
    if spelled := [exclusion.places[number] for number in unmet if nearly.get(str(number))]:
        yield (
            f"  warning: {len(spelled):,} entries match no row as they are written, but some rows in another spelling "
            f"(case, leading zeros, a decimal .0): write them as the CSV does: {first_few(spelled)}"
        )


def check_rows(read: ReadRows, *, listed: bool = True) -> None:
    """Stops a job that cannot use the rows; see `checks.refuse_unfit`.

    Args:
        read: the rows.
        listed: whether the job has written a rejects.parquet.

    Raises:
        DataError: as `checks.refuse_unfit` says.
    """
    found = read.summary

    def remedy_of(reason: str) -> str:
        if reason == Reason.MISSING_LABEL and (several := several_labels_warnings(read.data, found.labels)):
            return f"an empty cell may mean no label: {several[0]}"
        return remedy(reason, read.csv_files, [file_and_line(row["row_id"]) for row in found.examples[reason]])

    checks.refuse_unfit(
        read.data,
        read=found.read,
        outside_where=found.outside_where,
        reasons=found.reasons,
        examples=[line for reason in found.reasons for line in _examples(read, reason)][:5],
        labels=read.labels,
        remedy=remedy_of,
        spellings=found.spellings,
        label_rows=found.labels,
        listed=listed,
    )


def _examples(read: ReadRows, reason: str) -> list[str]:
    """The first rejects of a reason, as `FILE:LINE COLUMN: VALUE`."""
    return [
        f"{read.location(row['row_id'])} {row['column'] or 'row'}: {row['value'] or '(empty)'}"
        for row in read.summary.examples[reason]
    ]


def warning_lines(read: ReadRows, prepared: PreparedData) -> list[str]:
    """What the user should know about rows that can be used; see `checks.warnings`."""
    found = read.summary
    return [
        *checks.warnings(read.data, read.labels, found.labels, prepared.conflicts, prepared.tokens, found.spellings),
        *together_warnings(read.data, found.labels, found.companions),
    ]


def label_lines(found: RowSummary) -> Iterator[str]:
    """How many rows have how many labels, if it is not one each."""
    if set(found.label_numbers) - {1}:
        numbers = sorted(found.label_numbers.items())
        yield "labels a row: " + ", ".join(f"{number or 'none'} in {rows:,} rows" for number, rows in numbers)


def token_line(prepared: PreparedData, text: TextSpec) -> str:
    """Token lengths of the rows, and how many are truncated or become windows."""
    tokens = prepared.tokens
    lengths = ", ".join(f"{p} % ≤ {n}" for p, n in tokens["percentiles"].items())
    unknown = f"; {tokens['unknown_fraction']:.1%} are [UNK]" if tokens["unknown_fraction"] >= SOME_UNKNOWN else ""
    if text.on_long == "windows":
        return f"tokens a row: {lengths}; {tokens['windows']:,} windows of at most {tokens['max_tokens']}{unknown}"
    cut = "are cut to" if text.on_long == "truncate" else "are in training cut to"
    return f"tokens a row: {lengths}; {tokens['truncated_fraction']:.1%} {cut} {tokens['max_tokens']}{unknown}"


def limit_notes(read: ReadRows, text: TextSpec, most_tokens: int | None) -> Iterator[str]:
    """Which `text.max_tokens` would suit the rows better; see `token_limits.suggestion`."""
    if found := suggestion(read.summary.token_histogram, text, most_tokens, pairs=read.data.pair is not None):
        yield f"note: {found}"


def text_lines(read: ReadRows, prepared: PreparedData, text: TextSpec) -> Iterator[str]:
    """Token lengths of each text of a pair; an example, masked, where one text is made of several columns."""
    data = read.data
    for column, percentiles in zip(data.pair or (), prepared.tokens.get("texts", ()), strict=True):
        yield f"tokens of {column}: " + ", ".join(f"{p} % ≤ {n}" for p, n in percentiles.items())
    if data.pair is None and len(data.text_columns) > 1 and (found := read.first_input()):
        row_id, one = found
        joined = f"{', '.join(data.text_columns)} are joined by a space to one text, as in {read.location(row_id)}: "
        pair = f"; if they are a pair: --set data.text_columns=null {set_option('data.pair', data.text_columns)}"
        yield joined + shown(" ".join(one.segments), masker_of(text)) + (pair if len(data.text_columns) == 2 else "")


def split_lines(prepared: PreparedData) -> Iterator[str]:
    """For each label, its rows in each split."""
    for label, rows in prepared.rows_by_label().items():
        yield f"{label}: " + ", ".join(f"{split} {n:,}" for split, n in rows.items())
