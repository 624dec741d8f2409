"""Text -> token ids, defined once; training, batch jobs and HTTP all use this definition through the bundle.

In: a pretrained tokenizer and a `TextSpec`. Out: tokenizer files that say everything themselves (normalizer in
`tokenizer.json`, length limit in `tokenizer_config.json`), and token ids with the length before the cut.
Not here: padding (training/token_rows.py) and reading CSV (data/rows.py).
"""

import functools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from textcls.errors import ModelError
from textcls.plain_text import json_text
from textcls.settings.recipe import TextSpec
from textcls.text.normalizer import build_normalizer
from textcls.text.text_input import TextInput

_SPECIAL = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token", "bos_token", "eos_token")
# A prime, so that the ordinary tokens of a made-up text come from all over the vocabulary.
_STRIDE = 7919


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
        """The tokenizer that `save` left in a model directory; the directory is a verified bundle's.

        Raises:
            ModelError: the vocabulary has no padding token.
        """
        with open(os.path.join(directory, "tokenizer.json"), encoding="utf-8") as file:
            tokenizer_json = file.read()
        with open(os.path.join(directory, "tokenizer_config.json"), encoding="utf-8") as file:
            config_json = file.read()
        from tokenizers import Tokenizer

        config = json.loads(config_json)
        pad_id = _pad_id(Tokenizer.from_str(tokenizer_json), config, directory)
        return cls(tokenizer_json, config_json, config["model_max_length"], pad_id)

    def save(self, directory: str) -> None:
        """Writes both files into a model directory."""
        for name, content in (("tokenizer.json", self.tokenizer_json), ("tokenizer_config.json", self.config_json)):
            with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
                file.write(content)


def prepare_tokenizer(directory: str, spec: TextSpec) -> TokenizerFiles:
    """The pretrained tokenizer with the text settings made its own.

    Args:
        directory: local model directory.
        spec: text settings. Whether the model takes so many tokens is found by training/rehearsal.py.

    Raises:
        ModelError: no tokenizer, or no padding token.
    """
    from tokenizers import normalizers

    source = read_tokenizer_config(directory)
    backend = _backend(directory)
    normalizer = build_normalizer(spec)
    steps = [normalizer[i] for i in range(len(normalizer))]
    if backend.normalizer is not None:
        steps.append(backend.normalizer)
    if steps:
        backend.normalizer = normalizers.Sequence(steps)
    backend.no_padding()
    backend.enable_truncation(spec.max_tokens)

    # transformers would give a name that the vocabulary lacks an id beyond the model's embeddings.
    special = {
        key: token
        for key, token in _special_tokens(directory, source).items()
        if backend.token_to_id(token) is not None
    }
    pad_id = _pad_id(backend, special, directory)
    # transformers makes special tokens of the names in tokenizer_config.json; the tokenizer alone must do the same.
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    backend.add_special_tokens([token for token in dict.fromkeys(special.values()) if token not in known])
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


def _pad_id(backend: Any, special: dict[str, str], directory: str) -> int:
    """The padding token's id, whether or not it is among the added tokens."""
    pad_id = backend.token_to_id(special.get("pad_token", ""))
    if pad_id is None:
        other = special.get("eos_token") or special.get("sep_token") or special.get("unk_token")
        path = os.path.join(directory, "tokenizer_config.json")
        raise ModelError(
            f"{directory}: the tokenizer has no padding token",
            expected="the name of a token of the vocabulary as pad_token in tokenizer_config.json",
            todo=f'add "pad_token": {json.dumps(other)} to {path}' if other else "use a tokenizer that has one",
        )
    return int(pad_id)


def _backend(directory: str) -> Any:
    """The Rust tokenizer of a model directory, without transformers if `tokenizer.json` is there (3 s sooner)."""
    path = os.path.join(directory, "tokenizer.json")
    if not os.path.isfile(path):
        backend = getattr(_through_transformers(directory), "backend_tokenizer", None)
        if backend is None:
            raise _unloadable(directory, "its class is written in Python, and cannot be saved as tokenizer.json")
        return backend
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
    pieces = [name for name in sorted(os.listdir(directory)) if name.endswith(".model")]
    if pieces and find_spec("sentencepiece") is None:
        # transformers tries other libraries next, and ends by asking for one of those.
        reason, todo = f"{pieces[0]} needs the package sentencepiece to be converted", "pip install sentencepiece"
    else:
        todo = "choose a model.pretrained that has a tokenizer.json"
    return ModelError(
        f"{directory}: its tokenizer cannot be loaded: {reason}",
        expected="a tokenizer.json, or files that transformers can convert to one",
        todo=todo,
    )


def _special_tokens(directory: str, config: dict[str, Any]) -> dict[str, str]:
    """Names of the special tokens; older model directories keep them in a file of their own, some as objects."""
    known = {**_read_json(os.path.join(directory, "special_tokens_map.json")), **config}
    if not known.get("pad_token"):
        # bert-base-uncased names none of them: they are its class's defaults.
        known = {**known, **_through_transformers(directory).special_tokens_map}
    named = {key: known[key] for key in _SPECIAL if known.get(key)}
    return {key: value["content"] if isinstance(value, dict) else str(value) for key, value in named.items()}


def read_tokenizer_config(directory: str) -> dict[str, Any]:
    """The pretrained tokenizer's own settings, without ours; empty if it has none."""
    return _read_json(os.path.join(directory, "tokenizer_config.json"))


def _read_json(path: str) -> dict[str, Any]:
    if not os.path.isfile(path):
        return {}
    with open(path, encoding="utf-8") as file:
        content: dict[str, Any] = json.load(file)
    return content


class TextEncoder:
    """Turns inputs into token ids.

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
        self._special_ids = {files.pad_id, *self._tokenizer.get_added_tokens_decoder()}

    def __call__(self, inputs: Sequence[TextInput]) -> tuple[list[list[int]], np.ndarray]:
        """(token ids, token counts) of inputs, in order.

        Token ids hold at most `max_tokens`, special tokens included, without padding. A token count (int32) is the
        number before the cut: the input was truncated if the count is above `max_tokens`.
        """
        encoded = self._encoded(inputs)
        return [one.ids for one in encoded], self._counts(encoded)

    def windows(self, inputs: Sequence[TextInput]) -> tuple[list[list[list[int]]], np.ndarray]:
        """(token ids of each window, token counts) of inputs, in order; an input within the limit is one window."""
        encoded = self._encoded(inputs)
        return [[part.ids for part in (one, *one.overflowing)] for one in encoded], self._counts(encoded)

    def sample(self, length: int) -> list[int]:
        """Token ids of a made-up text of so many tokens: what frames every text, and ordinary tokens within.

        No word is looked up, for a tokenizer need not know any.

        Args:
            length: more than `special_tokens`.
        """
        frame = self._tokenizer.encode("").ids
        ordinary = self._ordinary_ids
        within = [ordinary[i * _STRIDE % len(ordinary)] for i in range(length - len(frame))]
        return [*frame[:1], *within, *frame[1:]]

    @functools.cached_property
    def _ordinary_ids(self) -> list[int]:
        """Ids of the vocabulary that are no special tokens, in ascending order."""
        known = set(self._tokenizer.get_vocab(with_added_tokens=True).values())
        return sorted(known - self._special_ids) or sorted(known)

    @property
    def highest_id(self) -> int:
        """The highest id that a text can have."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values())

    def _encoded(self, inputs: Sequence[TextInput]) -> Sequence[Any]:
        # The tokenizer takes a text, or the segments of a pair as a tuple.
        return self._tokenizer.encode_batch_fast([one.text for one in inputs])

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
