"""The files of a bundle from a checkpoint.

In: the local directory of a checkpoint, the tokenizer, the fitted temperature. Out: a Hugging Face model directory that
lacks the manifest alone. Not here: the manifest (bundle.py), where a bundle goes (attempts.py).
"""

import json
import os

import numpy as np
from safetensors.numpy import load_file, save_file

from textcls.plain_text import json_text
from textcls.text.tokenizer import TokenizerFiles


def export_files(checkpoint: str, directory: str, *, tokenizer: TokenizerFiles, head: str, temperature: float) -> None:
    """Writes configuration, calibrated weights and tokenizer into an empty local directory.

    Args:
        checkpoint: local directory with `config.json` and `model.safetensors`.
        directory: where to.
        tokenizer: the prepared tokenizer.
        head: name of the layer that the temperature is folded into, or "" for none.
        temperature: what the logits are to be divided by.
    """
    _copy_config(checkpoint, directory)
    weights = load_file(os.path.join(checkpoint, "model.safetensors"))
    for name in weights:
        if name.rpartition(".")[0] == head:
            weights[name] = weights[name] / np.float32(temperature)
    save_file(weights, os.path.join(directory, "model.safetensors"), metadata={"format": "pt"})
    tokenizer.save(directory)


def _copy_config(source: str, target: str) -> None:
    """Copies the model's settings; their label names, which transformers writes as escapes, become readable."""
    with open(os.path.join(source, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    with open(os.path.join(target, "config.json"), "w", encoding="utf-8") as file:
        file.write(json_text(config, indent=2) + "\n")
