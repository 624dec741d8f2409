"""A checkpoint as a bundle.

In: the best checkpoint of a finished run, the tokenizer, the calibration. Out: OUT/bundle, or in a local directory the
files of a bundle but for the manifest. Not here: the manifest (manifest.py), fitting the temperature
(split_scoring.py), dividing weights by it (modeling/build.py).
"""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from safetensors.torch import load_file, save_file

from textcls import storage
from textcls.bundle import write_bundle
from textcls.data.prepared_rows import PreparedData
from textcls.manifest import Manifest, Privacy
from textcls.modeling.build import fold_temperature
from textcls.plain_text import json_text
from textcls.settings.recipe import Recipe
from textcls.text.tokenizer_files import TokenizerFiles
from textcls.training import checkpoint
from textcls.training.loop_result import TrainOutcome


def export_bundle(
    recipe: Recipe,
    prepared: PreparedData,
    tokenizer: TokenizerFiles,
    outcome: TrainOutcome,
    out: str,
    metrics: Mapping[str, Any],
    privacy: Privacy | None = None,
) -> Manifest:
    """Writes the best checkpoint as a bundle to OUT/bundle.

    Args:
        recipe: the resolved recipe.
        prepared: its labels and fingerprint go into the manifest.
        tokenizer: the prepared tokenizer.
        outcome: of the training.
        out: URI of the run's directory.
        metrics: of the test, for the manifest.
        privacy: of private training; the manifest then does not identify the rows.

    Raises:
        StorageError: no space, no permission; the run can be resumed and will export the bundle then.
    """
    with (
        tempfile.TemporaryDirectory(prefix="textcls-bundle-") as directory,
        checkpoint.local_copy(outcome.state.best_uri) as best,
    ):
        divisors = outcome.calibration.divisors
        export_files(best, directory, tokenizer=tokenizer, head=outcome.head, temperature=divisors)
        return write_bundle(
            directory,
            storage.join(out, "bundle"),
            task=prepared.task,
            labels=prepared.labels,
            text=recipe.text,
            metrics=metrics,
            recipe=recipe,
            data_fingerprint=prepared.fingerprint if privacy is None else "",
            excluded=prepared.excluded,
            calibration=outcome.calibration,
            privacy=privacy,
        )


def export_files(
    source: str, target: str, *, tokenizer: TokenizerFiles, head: str, temperature: float | Sequence[float]
) -> None:
    """Writes configuration, calibrated weights and tokenizer into an empty local directory.

    Args:
        source: local directory with `config.json` and `model.safetensors`.
        target: where to.
        tokenizer: the prepared tokenizer.
        head: name of the layer that the temperature is folded into, or "" for none.
        temperature: the divisor of the logits, or one for each label.
    """
    _copy_config(source, target)
    weights = load_file(os.path.join(source, "model.safetensors"))
    fold_temperature(weights, head, temperature)
    save_file(weights, os.path.join(target, "model.safetensors"), metadata={"format": "pt"})
    tokenizer.save(target)


def _copy_config(source: str, target: str) -> None:
    """Copies the model's settings; their label names, which transformers writes as escapes, become readable."""
    with open(os.path.join(source, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    with open(os.path.join(target, "config.json"), "w", encoding="utf-8") as file:
        file.write(json_text(config, indent=2) + "\n")
