"""CSV files read and cleaned in the test's process, as Ray's tasks do it on a cluster."""

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from textcls.data import checks
from textcls.data.csv_records import read_shard
from textcls.data.csv_shards import plan_shards
from textcls.data.input_files import expand
from textcls.data.rows import CleanRow, RowCleaner
from textcls.data.spellings import spelling_warnings
from textcls.data.summary import RowSummary
from textcls.settings.data import DataSpec
from textcls.settings.recipe import TextSpec
from textcls.settings.recipe_file import parse_recipe
from textcls.tasks.registry import task_of


@dataclass(frozen=True)
class Read:
    """What was read, and under which settings."""

    data: DataSpec
    found: RowSummary

    @property
    def warnings(self) -> list[str]:
        """What the user is warned of about spellings."""
        return spelling_warnings(self.data, self.found.labels, self.found.spellings)

    def refuse_unfit(self) -> None:
        """Raises what the checks raise."""
        labels = self.data.labels or tuple(sorted(self.found.labels))
        checks.refuse_unfit(
            self.data,
            read=self.found.read,
            outside_where=self.found.outside_where,
            reasons=self.found.reasons,
            examples=[],
            labels=labels,
            spellings=self.found.spellings,
            label_rows=self.found.labels,
        )


def read(csv: Sequence[Path | str], *overrides: str) -> Read:
    """Reads files under a recipe of these overrides."""
    return read_as(parse_recipe("", [*overrides]).data, csv)


def read_as(spec: DataSpec, csv: Sequence[Path | str]) -> Read:
    """Reads files under data settings."""
    data = spec.model_copy(update={"csv": tuple(map(str, csv))})
    layouts, shards = plan_shards(expand(data.csv), data, run=lambda function, jobs: [function(*job) for job in jobs])
    found, task = RowSummary(), task_of(data)
    for shard in shards:
        layout = layouts[shard.file_index]
        cleaner = RowCleaner(layout, data, TextSpec(), task)
        rows = [cleaner(line, fields) for line, fields in read_shard(shard, layout, data)]
        clean = [row for row in rows if isinstance(row, CleanRow)]
        summary = RowSummary(
            rows=len(clean),
            outside_where=rows.count(None),
            reasons=Counter(row.reason for row in rows if row is not None and not isinstance(row, CleanRow)),
            spellings=cleaner.spellings,
        )
        for label, number in Counter(row.label for row in clean).items():
            summary.add_label(task.names_in(label), number)
        found.add(summary)
    return Read(data, found)


def options(text: str) -> list[str]:
    """The overrides of every `--set` in a message, as a shell would hand them on."""
    found, rest = [], text
    while "--set " in rest:
        rest = rest[rest.index("--set ") :]
        lexer = shlex.shlex(rest, posix=True, punctuation_chars=";")
        lexer.whitespace_split = True
        assert next(lexer) == "--set"
        found.append(next(lexer))
        rest = rest[len("--set ") :]
    return found
