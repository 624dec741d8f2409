"""`rejects.parquet`: every row that could not be used, and why.

In: tables of rejects, block by block. Out: the file. Not here: what makes a row a reject (rows.py), gathering them
(pipeline.py).
"""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from textcls import storage

REJECT_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("line", pa.int64()),
        ("column", pa.string()),
        ("reason", pa.string()),
        ("value", pa.string()),
    ]
)


def write_rejects(out: str, tables: Iterable[pa.Table]) -> None:
    """Writes OUT/rejects.parquet, one table after the other; also if there is no reject."""
    with (
        storage.written_whole(storage.join(out, "rejects.parquet")) as file,
        pq.ParquetWriter(file, REJECT_SCHEMA) as writer,
    ):
        for table in tables:
            writer.write_table(table)
