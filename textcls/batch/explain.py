"""Bundle + CSV files -> predictions with an explanation of each, and a page of them.

In: a verified bundle, settings, an --out. Out: the manifest. OUT holds what a prediction's does, whose parts have two
more columns, and explanations.html, which shows as many of the rows as it has room for. All texts are masked as
`text.mask` of the bundle says, and so are the columns of the input. Not here: reading, scoring and continuing, which
are those of predict.py; the columns (explanation_rows.py).
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from textcls import encryption, storage
from textcls.batch.explanation_rows import Explaining, explained_rows
from textcls.batch.predict import Say, predict
from textcls.batch.settings import PredictSpec
from textcls.bundle import Bundle
from textcls.encryption import NO_KEYS, Keys
from textcls.inference.explain import refuse_unknown
from textcls.output.side_product import side_product
from textcls.reporting.explanation_page import explanation_page
from textcls.text.masks import mask_kinds

PAGE = "explanations.html"

_METHODS = {
    "leave_one_out": "each word is left out: the change of the label's logit without it",
    "integrated_gradients": "integrated gradients: the logit as a sum over the words, from a text of padding on",
}


def explain_rows(
    bundle: Bundle,
    spec: PredictSpec,
    out: str,
    explaining: Explaining,
    *,
    keys: Keys = NO_KEYS,
    say: Say,
    verbose: bool = False,
) -> dict[str, Any]:
    """Predicts and explains rows of the files and writes both to `out`; returns the manifest.

    Args:
        bundle: a verified bundle.
        spec: from `predict_settings`.
        out: URI of a new directory, or of one where the same job was interrupted: it then continues.
        explaining: which rows and labels, and how.
        keys: the recipients, if parts and page are to be encrypted.
        say: shows the user one line.
        verbose: show Ray's own log lines as well.

    Raises:
        TextclsError: see `predict`; the bundle has no label of this name.
    """
    refuse_unknown(explaining.labels or (), bundle.manifest.labels)

    def write_page(uri: str, manifest: Mapping[str, Any], open_input: Callable[[str], BinaryIO]) -> None:
        with side_product(PAGE, say):
            page = explanation_page(
                explained_rows(_parts(uri, manifest, open_input), explaining.method),
                title=f"Explanations of {bundle.uri}",
                about=[("method", _METHODS[explaining.method]), ("rows", f"{manifest['rows']:,}")],
                total_rows=manifest["rows"],
            )
            encryption.write_bytes(storage.join(uri, keys.name(PAGE)), page.encode(), keys.recipients)

    return predict(
        bundle,
        spec,
        out,
        suffix="parquet",
        all_scores=False,
        explaining=explaining,
        mask_columns=bool(mask_kinds(bundle.manifest.text)),
        beside=write_page,
        keys=keys,
        say=say,
        verbose=verbose,
    )


def _parts(uri: str, manifest: Mapping[str, Any], open_input: Callable[[str], BinaryIO]) -> Iterator[pa.Table]:
    """The parts in order, a few rows at a time."""
    for part in manifest["files"]:
        with open_input(storage.join(uri, part["name"])) as file:
            for batch in pq.ParquetFile(file).iter_batches(batch_size=16):
                yield pa.Table.from_batches([batch])
