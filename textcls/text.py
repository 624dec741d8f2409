"""Text -> token ids, defined once; training, batch jobs and HTTP all use this definition through the bundle.

In: a pretrained tokenizer and a `TextSpec`. Out: tokenizer files that say everything themselves (normalizer in
`tokenizer.json`, length limit in `tokenizer_config.json`), and token ids with the length before the cut.
Not here: padding (training/collate.py) and reading CSV (data/rows.py).
"""

import functools
import json
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from textcls.errors import ModelError
from textcls.plain_text import json_text
from textcls.recipe import TextSpec

_SPECIAL = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token", "bos_token", "eos_token")


def normalise(text: str, spec: TextSpec) -> str:
    """The text as rows are compared: equal results are duplicates and never straddle two splits.

    Unicode form and case as the tokenizer sees them, and each run of white space as one space, which no
    BERT-family tokenizer tells apart.
    """
    if spec.unicode_form != "none" and not text.isascii():
        text = unicodedata.normalize(spec.unicode_form, text)
    if spec.lowercase:
        text = text.lower()
    return " ".join(text.split())


@dataclass(frozen=True)
class TokenizerFiles:
    """A tokenizer as the two files that a model directory keeps; small, picklable, complete.

    Attributes:
        tokenizer_json: content of `tokenizer.json`; carries the normalizer of the `TextSpec`, no padding.
        config_json: content of `tokenizer_config.json`; `model_max_length` is the `TextSpec`'s limit.
        max_tokens: the limit, special tokens included.
        pad_id: id that fills a batch's shorter rows.
    """

    tokenizer_json: str
    config_json: str
    max_tokens: int
    pad_id: int

    @classmethod
    def load(cls, directory: str) -> "TokenizerFiles":
        """The tokenizer that `save` left in a model directory; the directory is a verified bundle's."""
        with open(os.path.join(directory, "tokenizer.json"), encoding="utf-8") as file:
            tokenizer_json = file.read()
        with open(os.path.join(directory, "tokenizer_config.json"), encoding="utf-8") as file:
            config_json = file.read()
        config = json.loads(config_json)
        added = {token["content"]: token["id"] for token in json.loads(tokenizer_json)["added_tokens"]}
        return cls(tokenizer_json, config_json, config["model_max_length"], added[config["pad_token"]])

    def save(self, directory: str) -> None:
        """Writes both files into a model directory."""
        for name, content in (("tokenizer.json", self.tokenizer_json), ("tokenizer_config.json", self.config_json)):
            with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
                file.write(content)


def prepare_tokenizer(directory: str, spec: TextSpec, *, model_limit: int | None) -> TokenizerFiles:
    """The pretrained tokenizer with the text settings made its own.

    Args:
        directory: local model directory.
        spec: text settings.
        model_limit: positions the model has, if it says so.

    Raises:
        ModelError: no tokenizer, no padding token, or `max_tokens` above the model's limit.
    """
    from tokenizers import normalizers

    source = _read_json(os.path.join(directory, "tokenizer_config.json"))
    backend = _backend(directory)
    limits = [n for n in (source.get("model_max_length"), model_limit) if isinstance(n, int) and n < 10**6]
    if limits and spec.max_tokens > min(limits):
        raise ModelError(
            f"text.max_tokens {spec.max_tokens} is more than this model's limit of {min(limits)} tokens",
            todo=f"--set text.max_tokens={min(limits)}",
        )
    steps: list[Any] = []
    if spec.unicode_form != "none":
        steps.append(normalizers.NFC() if spec.unicode_form == "NFC" else normalizers.NFKC())
    if spec.lowercase:
        steps.append(normalizers.Lowercase())
    if backend.normalizer is not None:
        steps.append(backend.normalizer)
    if steps:
        backend.normalizer = normalizers.Sequence(steps)
    backend.no_padding()
    backend.enable_truncation(spec.max_tokens)

    special = _special_tokens(directory, source)
    pad_id = backend.token_to_id(special.get("pad_token", ""))
    if pad_id is None:
        raise ModelError(f"{directory}: the tokenizer has no padding token", expected="a BERT-family tokenizer")
    config = {
        # The generic class takes tokenizer.json as it is. Model-specific ones such as BertTokenizer rebuild the
        # normalizer from their own arguments and would silently drop ours (transformers 5.23).
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": spec.max_tokens,
        "padding_side": "right",
        "truncation_side": "right",
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        **special,
    }
    return TokenizerFiles(backend.to_str(), json_text(config, indent=2, sort_keys=True), spec.max_tokens, pad_id)


def _backend(directory: str) -> Any:
    """The Rust tokenizer of a model directory, without transformers if `tokenizer.json` is there (3 s sooner)."""
    path = os.path.join(directory, "tokenizer.json")
    if not os.path.isfile(path):
        return _through_transformers(directory).backend_tokenizer
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(path)
    except Exception as error:  # tokenizers raises bare Exception for a malformed file
        raise _unloadable(directory, error) from error


def _through_transformers(directory: str) -> Any:
    """What transformers makes of a model directory's older files."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(directory)
    except Exception as error:  # conversion fails in as many ways as there are formats
        raise _unloadable(directory, error) from error
    if tokenizer.vocab_size <= len(tokenizer.all_special_tokens):
        # Without a vocabulary transformers 5 makes a tokenizer of the special tokens alone.
        raise _unloadable(directory, "there is no vocabulary")
    return tokenizer


def _unloadable(directory: str, reason: object) -> ModelError:
    return ModelError(
        f"{directory}: its tokenizer cannot be loaded: {reason}",
        expected="a tokenizer.json, or files that transformers can convert to one",
    )


def _special_tokens(directory: str, config: dict[str, Any]) -> dict[str, str]:
    """Names of the special tokens; older model directories keep them in a file of their own, some as objects."""
    known = {**_read_json(os.path.join(directory, "special_tokens_map.json")), **config}
    if not known.get("pad_token"):
        # bert-base-uncased names none of them: they are its class's defaults.
        known = {**known, **_through_transformers(directory).special_tokens_map}
    named = {key: known[key] for key in _SPECIAL if known.get(key)}
    return {key: value["content"] if isinstance(value, dict) else str(value) for key, value in named.items()}


def _read_json(path: str) -> dict[str, Any]:
    if not os.path.isfile(path):
        return {}
    with open(path, encoding="utf-8") as file:
        content: dict[str, Any] = json.load(file)
    return content


class TextEncoder:
    """Turns texts into token ids.

    One per thread: the Rust tokenizer refuses concurrent use.

    Args:
        files: the tokenizer.
        overlap: tokens that neighbouring windows of a long text share.
    """

    def __init__(self, files: TokenizerFiles, *, overlap: int = 0) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_str(files.tokenizer_json)
        self._tokenizer.enable_truncation(files.max_tokens, stride=overlap)
        self.special_tokens = int(self._tokenizer.num_special_tokens_to_add(False))
        self._repeated = self.special_tokens + overlap
        self.max_tokens = files.max_tokens

    def __call__(self, texts: Sequence[str]) -> tuple[list[list[int]], np.ndarray]:
        """(token ids, token counts) of texts, in order.

        Token ids hold at most `max_tokens`, special tokens included, without padding. A token count (int32) is what
        the text would have had uncut: the text was truncated if the count is above `max_tokens`.
        """
        encoded = self._tokenizer.encode_batch_fast(list(texts))
        return [one.ids for one in encoded], self._counts(encoded)

    def windows(self, texts: Sequence[str]) -> tuple[list[list[list[int]]], np.ndarray]:
        """(token ids of each window, token counts) of texts, in order; a text within the limit is one window."""
        encoded = self._tokenizer.encode_batch_fast(list(texts))
        return [[part.ids for part in (one, *one.overflowing)] for one in encoded], self._counts(encoded)

    def _counts(self, encoded: Sequence[Any]) -> np.ndarray:
        return np.fromiter(
            (len(one.ids) + sum(len(rest.ids) - self._repeated for rest in one.overflowing) for one in encoded),
            np.int32,
            len(encoded),
        )


@functools.lru_cache(maxsize=2)
def encoder_of(files: TokenizerFiles) -> TextEncoder:
    """The encoder of these files, built once per process (a tokenizer takes 0.1 s to parse)."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # Ray runs one task per core already
    return TextEncoder(files)
