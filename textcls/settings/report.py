"""What a report tells of the rows it is made of, beyond the scores.

In: plain values. Out: a checked `ReportSpec`. Not here: how slices are counted (slices/), how they are shown
(reporting/).
"""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field, field_validator

from textcls.settings.spec import Names, Spec


class ReportSpec(Spec):
    """What the report shows of the scored rows. Never changes what is learned."""

    added_later: ClassVar[frozenset[str]] = frozenset({"explain_rows"})

    slices: Names = ()
    """Columns of the CSV whose values divide the rows into slices, each with its rows and its share of right answers,
    beside those by length, truncation, file, confidence and label. With `[channel, customer_age]`, the report shows
    whether mails are answered worse than chats. The 30 values with most rows are listed and the others counted
    together; numbers with more values than that become ranges. Without a header: 0-based positions."""
    texts: bool = False
    """Whether report.json holds the texts of the rows it shows as examples, 500 characters of each at most, and what
    each word does to the score. Off, it names their files and lines: reports are passed on, and texts may be
    confidential. It takes as long as scoring each of the 20 rows once without each of its words."""
    explain_rows: int = Field(0, ge=0)
    """Explain about this many rows and report how faithful explanations are: what scores lose without the words that
    are named first, and with these alone, beside a random order. 200 rows of 30 words take as long as scoring 10,000
    rows."""

    @field_validator("slices")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("expected each column once")
        return value

    def check_columns(self, input_columns: Sequence[str], *, header: bool) -> None:
        """Checks the columns of `slices` against the settings of the data.

        Raises:
            ValueError: a column of texts, or a name where there is no header.
        """
        for column in self.slices:
            if column in input_columns:
                raise ValueError(
                    f"report.slices names {column!r}, a column of texts: each would be a slice of its own, and in the "
                    "report; name a column of categories or numbers"
                )
            if not header and not column.isdecimal():
                raise ValueError(f"without a header columns are 0-based positions, not {column!r} as in report.slices")
