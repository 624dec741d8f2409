"""The tokenizer of a model as two files that are complete by themselves.

In: the tokenizer of a pretrained model and a `TextSpec`. Out: its files, with the normalizer in `tokenizer.json` and
the length limit in `tokenizer_config.json`. Not here: tokenizing (tokenizer.py), the normalizer (normalizer.py), the
tokens of placeholders (placeholders.py).
"""

import json
import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from textcls.errors import ModelError
from textcls.plain_text import json_text
from textcls.settings.recipe import TextSpec
from textcls.text.mask_steps import flat
from textcls.text.normalizer import build_normalizer
from textcls.text.placeholders import add_placeholders, without_masks

TOKEN_TYPES = "token_type_ids"
_SPECIAL = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token", "bos_token", "eos_token")


@dataclass(frozen=True)
class TokenizerFiles:
    """A tokenizer as the two files of a model directory: small, complete, and can be pickled.

    Attributes:
        tokenizer_json: content of `tokenizer.json`, with the normalizer of the `TextSpec` and without padding.
        config_json: content of `tokenizer_config.json`; `model_max_length` is the limit of the `TextSpec`.
        max_tokens: the limit, special tokens included.
        pad_id: id of the padding token.
        token_types: whether the model reads token types; only for pairs.
        new_ids: ids of placeholders that the pretrained model has no embedding of, ascending; of a bundle none.
    """

    tokenizer_json: str
    config_json: str
    max_tokens: int
    pad_id: int
    token_types: bool = False
    new_ids: tuple[int, ...] = ()

    @classmethod
    def load(cls, directory: str) -> "TokenizerFiles":
        """Loads the tokenizer that `save` wrote into the directory of a verified bundle.

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
        token_types = TOKEN_TYPES in config.get("model_input_names", ())
        return cls(tokenizer_json, config_json, config["model_max_length"], pad_id, token_types)

    def save(self, directory: str) -> None:
        """Writes both files into a model directory."""
        for name, content in (("tokenizer.json", self.tokenizer_json), ("tokenizer_config.json", self.config_json)):
            with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
                file.write(content)


def prepare_tokenizer(directory: str, spec: TextSpec, *, token_types: bool = False) -> TokenizerFiles:
    """The pretrained tokenizer, with the text settings in its files.

    Args:
        directory: local model directory.
        spec: text settings. training/rehearsal.py checks that the model takes `max_tokens`.
        token_types: whether the model gets a type for each token: 0 in the first text of a pair, 1 in the second.

    Raises:
        ModelError: the directory has no tokenizer, its vocabulary no padding token, or it cannot have placeholders.
    """
    from tokenizers import normalizers

    source = read_tokenizer_config(directory)
    backend = _backend(directory)
    # What is masked is for the recipe to say, also where the model is a bundle that masks.
    own = without_masks(backend.normalizer)
    steps = [*flat(build_normalizer(spec)), *([] if own is None else [own])]
    if steps:
        backend.normalizer = normalizers.Sequence(steps)
    backend.no_padding()
    backend.enable_truncation(spec.max_tokens)

    # transformers would add a token that the vocabulary lacks, with an id beyond the embeddings of the model.
    special = {
        key: token
        for key, token in _special_tokens(directory, source).items()
        if backend.token_to_id(token) is not None
    }
    pad_id = _pad_id(backend, special, directory)
    # transformers treats the names in tokenizer_config.json as special tokens: tokenizer.json alone must do the same.
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    backend.add_special_tokens([token for token in dict.fromkeys(special.values()) if token not in known])
    new_ids = add_placeholders(backend, spec, directory)
    config = {
        # The generic class takes tokenizer.json as it is. Model-specific ones such as BertTokenizer rebuild the
        # normalizer from their own arguments and would silently drop ours (transformers 5.23).
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": spec.max_tokens,
        "padding_side": "right",
        "truncation_side": "right",
        "model_input_names": ["input_ids", *([TOKEN_TYPES] if token_types else []), "attention_mask"],
        "clean_up_tokenization_spaces": False,
        **special,
    }
    config_json = json_text(config, indent=2, sort_keys=True)
    return TokenizerFiles(backend.to_str(), config_json, spec.max_tokens, pad_id, token_types, new_ids)


def _pad_id(backend: Any, special: dict[str, str], directory: str) -> int:
    """The id of the padding token, which need not be an added token."""
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
    """The Rust tokenizer of a model directory; with a `tokenizer.json`, without importing transformers (3 s)."""
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
    """The tokenizer that transformers converts from older files of a model directory."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(directory)
    except Exception as error:  # each file format fails in another way
        raise _unloadable(directory, error) from error
    if tokenizer.vocab_size <= len(tokenizer.all_special_tokens):
        # Without a vocabulary, transformers 5 creates a tokenizer that has special tokens alone.
        raise _unloadable(directory, "there is no vocabulary")
    return tokenizer


def _unloadable(directory: str, reason: object) -> ModelError:
    pieces = [name for name in sorted(os.listdir(directory)) if name.endswith(".model")]
    if pieces and find_spec("sentencepiece") is None:
        # transformers tries other libraries next, and its error names one of those.
        reason, todo = f"{pieces[0]} needs the package sentencepiece to be converted", "pip install sentencepiece"
    else:
        todo = "choose a model.pretrained that has a tokenizer.json"
    return ModelError(
        f"{directory}: its tokenizer cannot be loaded: {reason}",
        expected="a tokenizer.json, or files that transformers can convert to one",
        todo=todo,
    )


def _special_tokens(directory: str, config: dict[str, Any]) -> dict[str, str]:
    """The special tokens by name; older model directories have a file for them, and some store objects."""
    known = {**_read_json(os.path.join(directory, "special_tokens_map.json")), **config}
    if not known.get("pad_token"):
        # The files of bert-base-uncased name none: they are defaults of its tokenizer class.
        known = {**known, **_through_transformers(directory).special_tokens_map}
    named = {key: known[key] for key in _SPECIAL if known.get(key)}
    return {key: value["content"] if isinstance(value, dict) else str(value) for key, value in named.items()}


def read_tokenizer_config(directory: str) -> dict[str, Any]:
    """The content of `tokenizer_config.json` of a pretrained model; empty if there is none."""
    return _read_json(os.path.join(directory, "tokenizer_config.json"))


def _read_json(path: str) -> dict[str, Any]:
    if not os.path.isfile(path):
        return {}
    with open(path, encoding="utf-8") as file:
        content: dict[str, Any] = json.load(file)
    return content
