"""The files of `data.exclude` -> an `Exclusion`; texts in a CSV -> their hashes, for such a file.

In: data and text settings. Out: see above, or an error with file and line, which never repeats a key or a text.
Not here: which rows an exclusion takes out (exclusion.py, rows.py).

What a file holds is seen from its first line: hashes of texts, a header with the column of keys, a header with the
columns of the input, or, with `data.exclude_by`, one key a line.
"""

import csv
import io
from collections.abc import Iterator, Sequence

from textcls import storage
from textcls.data.csv_head import read_layout
from textcls.data.csv_layout import Layout
from textcls.data.csv_records import CellTooLong, Shard, read_shard
from textcls.data.exclusion import TEXT_MARK, Exclusion, rules_of, text_mark
from textcls.data.input_files import InputFile
from textcls.data.rows import Reject, TextReader
from textcls.errors import DataError
from textcls.settings.data import DataSpec
from textcls.settings.recipe import TextSpec
from textcls.text.normalizer import normalizer_of

_Entry = tuple[str, str, str]  # as `Exclusion.of` takes them


class _ColumnsSpec(DataSpec):
    """How to read a file that needs some columns only."""

    only: tuple[str, ...] = ()
    """Their names or, without a header, their positions."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the file must have."""
        return self.only


def read_exclusion(data: DataSpec, text: TextSpec) -> Exclusion | None:
    """The entries of all files of `data.exclude`; None if there are no files.

    Args:
        data: the settings of the rows; a CSV among the files is read by them too.
        text: which texts are equal.

    Raises:
        DataError: a file is missing, holds something else, or hashes that were made with other text settings.
    """
    if not data.exclude:
        return None
    entries = (entry for uri in data.exclude for entry in _entries(storage.absolute(uri), data, text))
    return Exclusion.of(data.exclude_by or "", entries, rules_of(text))


def text_marks(files: Sequence[InputFile], data: DataSpec, text: TextSpec) -> list[str]:
    """The hashes of the different texts of CSV files, sorted, as a file of `data.exclude` holds them.

    Args:
        files: with the columns of the input; labels are not needed.
        data: how to read them.
        text: which texts are equal.

    Raises:
        DataError: a file lacks a column, or a row cannot be read.
    """
    rules, found = rules_of(text), set[str]()
    for file in files:
        spec = _reading(data, data.input_columns, data.encoding, data.delimiter)
        for _, digest, _ in _texts(file.uri, spec, read_layout(file, spec), text):
            found.add(text_mark(digest, rules))
    return sorted(found)


def _entries(uri: str, data: DataSpec, text: TextSpec) -> Iterator[_Entry]:
    if not storage.exists(uri):
        raise DataError(f"data.exclude: {uri}: no such file", todo="name the file with what is to be forgotten")
    raw = storage.read_bytes(uri)
    if not raw.strip():
        return
    content, encoding = _decoded(raw, data)
    if TEXT_MARK.fullmatch(content.lstrip().partition("\n")[0].strip()):
        yield from _hashes(uri, content, rules_of(text))
        return
    file = InputFile(uri, len(raw))
    if data.exclude_by is not None and data.header and (found := _fitting(file, data, (data.exclude_by,), encoding)):
        yield from _keys(uri, *found)
    elif (data.exclude_by is None or data.header) and (found := _fitting(file, data, data.input_columns, encoding)):
        yield from _texts(uri, *found, text)
    elif data.exclude_by is not None:
        yield from _lines(uri, content, data.exclude_by)
    else:
        columns = ", ".join(data.input_columns)
        raise DataError(
            f"data.exclude: {uri} holds neither texts nor hashes of texts",
            expected=f"a CSV with the columns {columns}, or what textcls forget writes",
            todo="correct the file; if it holds keys, name their column: --set data.exclude_by=NAME",
        )


def _decoded(raw: bytes, data: DataSpec) -> tuple[str, str]:
    """(content, encoding) of a file: in the encoding of the data, unless only UTF-8, as spreadsheets write it, fits."""
    for encoding in dict.fromkeys(("utf-8-sig", data.encoding)):
        try:
            return raw.decode(encoding), "utf-8" if encoding == "utf-8-sig" else encoding
        except UnicodeError:
            continue
    return raw.decode(data.encoding, "replace"), data.encoding


def _fitting(
    file: InputFile, data: DataSpec, columns: tuple[str, ...], encoding: str
) -> tuple[_ColumnsSpec, Layout] | None:
    """(settings, layout) by which a file has some columns; None if it lacks them."""
    for delimiter in dict.fromkeys((data.delimiter, "auto")):
        spec = _reading(data, columns, encoding, delimiter)
        try:
            return spec, read_layout(file, spec)
        except DataError:
            continue
    return None


def _reading(data: DataSpec, columns: tuple[str, ...], encoding: str, delimiter: str) -> _ColumnsSpec:
    # Not validated again: settings that were completed since would be refused.
    content = dict(data) | {"only": columns, "encoding": encoding, "delimiter": delimiter}
    return _ColumnsSpec.model_construct(data.model_fields_set, **content)


def _hashes(uri: str, content: str, rules: str) -> Iterator[_Entry]:
    for line, text in enumerate(content.splitlines(), 1):
        if not text.strip():
            continue
        found = TEXT_MARK.fullmatch(text.strip())
        if found is None:
            raise DataError(
                f"data.exclude: {uri}:{line} is no hash of a text, as the lines above it are",
                todo="correct the line, or move what it holds into a file of its own",
            )
        if found["rules"] != rules:
            raise DataError(
                f"data.exclude: {uri}:{line}: the hash was made with other text settings, and would match no row",
                expected=f"hashes that begin with text-{rules}-, those of this recipe",
                todo="make them again from the texts with textcls forget and this recipe, or set its text section as "
                "it was for them",
            )
        yield "", found["digest"], f"{uri}:{line}"


def _keys(uri: str, spec: _ColumnsSpec, layout: Layout) -> Iterator[_Entry]:
    for line, fields in _records(uri, spec, layout):
        if key := fields[layout.positions[0]].strip():
            yield key, "", f"{uri}:{line}"


def _lines(uri: str, content: str, column: str) -> Iterator[_Entry]:
    records = csv.reader(io.StringIO(content, newline=""))
    end = 0
    try:
        for cells in records:
            line, end = end + 1, records.line_num
            if len(cells) > 1:
                raise _no_key(uri, line, column)
            if cells and (key := cells[0].strip()):
                yield key, "", f"{uri}:{line}"
    except csv.Error as error:  # such as a quote that is never closed in a large file
        raise _no_key(uri, end + 1, column) from error


def _no_key(uri: str, line: int, column: str) -> DataError:
    return DataError(
        f"data.exclude: {uri}:{line} is not one key",
        expected=f"one a line, or a CSV with the column {column!r} (data.exclude_by)",
        todo="put a key with a comma into quotes, or add the header",
    )


def _texts(uri: str, spec: _ColumnsSpec, layout: Layout, text: TextSpec) -> Iterator[_Entry]:
    reader, normalize = TextReader(layout, spec), normalizer_of(text)
    for line, fields in _records(uri, spec, layout):
        one = reader.input(line, fields)
        if isinstance(one, Reject):
            raise _no_row(uri, line, one.reason)
        yield "", one.digest(normalize), f"{uri}:{line}"


def _records(uri: str, spec: _ColumnsSpec, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    for line, fields in read_shard(Shard(uri, 0), layout, spec):
        if isinstance(fields, CellTooLong):
            raise _no_row(uri, line, "cell_too_long")
        if len(fields) != layout.width:
            raise _no_row(uri, line, "ragged_row")
        yield line, fields


def _no_row(uri: str, line: int, reason: str) -> DataError:
    return DataError(
        f"data.exclude: {uri}:{line} is no row of such a file: {reason}",
        todo="correct the line, or delete it: what is not read cannot be forgotten",
    )
