"""The counts of a prediction: its manifest, and which files have nothing but errors.

In: the records of all parts. Out: the content of predictions.json, and sentences for the user. Not here: counting the
rows of a part (predict_shard.py), the files (predictions_dir.py).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from textcls.batch.prediction_rows import Columns
from textcls.batch.predictions_dir import PredictionsDir
from textcls.bundle import Bundle
from textcls.data.csv_records import Shard


def manifest_of(
    bundle: Bundle,
    target: PredictionsDir,
    shards: Sequence[Shard],
    records: Mapping[int, Mapping[str, Any]],
    columns: Columns,
) -> dict[str, Any]:
    """The counts of all parts; they do not depend on interruptions."""

    def total_of(counts: str) -> dict[str, int]:
        total: Counter[str] = Counter()
        for index in range(len(shards)):
            total.update(records[index][counts])
        return dict(sorted(total.items()))

    return {
        "bundle": {"uri": bundle.uri, "digest": bundle.digest, "labels": list(bundle.manifest.labels)},
        "rows": sum(record["rows"] for record in records.values()),
        "labels": total_of("labels"),
        "errors": total_of("errors"),
        "truncated": sum(record["truncated"] for record in records.values()),
        "renamed_columns": columns.renamed,
        **({"encrypt_to": target.keys.recipients} if target.keys.recipients else {}),
        "precision": sorted({record["precision"] for record in records.values()}),
        "versions": bundle.manifest.versions,
        "files": [
            {
                "name": target.part_name(index),
                "rows": records[index]["rows"],
                "input": shard.uri,
                "first_line": shard.first_line,
            }
            for index, shard in enumerate(shards)
        ],
    }


def lost_files(shards: Sequence[Shard], records: Mapping[int, Mapping[str, Any]]) -> Iterator[str]:
    """A sentence for each file without a scored row, if other files have scored rows."""
    labelled: Counter[str] = Counter()
    errors: dict[str, Counter[str]] = {}
    for index, shard in enumerate(shards):
        labelled[shard.uri] += sum(records[index]["labels"].values())
        errors.setdefault(shard.uri, Counter()).update(records[index]["errors"])
    for uri, reasons in errors.items():
        if reasons and not labelled[uri] and labelled.total():
            counted = ", ".join(f"{number:,} {reason}" for reason, number in reasons.most_common())
            yield f"no row of {uri} could be scored: {counted}"
