"""Tiny tokenizers of the kinds that pretrained models have, and what transformers makes of a tokenizer's files."""

import json
import shutil
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from textcls.text.tokenizer_files import TokenizerFiles

_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
_NAMES = {"bos_token": 0, "cls_token": 0, "pad_token": 1, "sep_token": 2, "eos_token": 2, "unk_token": 3}


def _of_bytes() -> Tokenizer:
    """As RoBERTa's: bytes, a space at the beginning of words, special tokens that are found before the normalizer."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate([*_SPECIAL, *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer


def _of_sentence_pieces() -> Tokenizer:
    """As XLM-RoBERTa's: its normalizer makes ASCII of full-width characters, and one space of several."""
    letters = [*"▁abcdefghijklmnopqrstuvwxyz0123456789.,!?-()/:@[]_", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "▁film", "给"]
    pieces = [(piece, 0.0 if piece in _SPECIAL else -float(1 + i % 3)) for i, piece in enumerate([*_SPECIAL, *letters])]
    tokenizer = Tokenizer(models.Unigram(pieces, 3, False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" {2,}", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def _cased(model: Path) -> Tokenizer:
    """As that of bert-base-cased."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    return tokenizer


TOKENIZERS = ("word pieces", "cased word pieces", "bytes", "sentence pieces")


def save_with_tokenizer(kind: str, tiny_model_dir: Path, target: Path) -> Path:
    """The tiny model with a tokenizer of one of `TOKENIZERS`, in the directory `target`."""
    shutil.copytree(tiny_model_dir, target, dirs_exist_ok=True)
    if kind == "cased word pieces":
        _cased(tiny_model_dir).save(str(target / "tokenizer.json"))
    elif kind != "word pieces":
        tokenizer = _of_bytes() if kind == "bytes" else _of_sentence_pieces()
        tokenizer.add_special_tokens(_SPECIAL)
        tokenizer.save(str(target / "tokenizer.json"))
        names = {name: _SPECIAL[i] for name, i in _NAMES.items()}
        (target / "tokenizer_config.json").write_text(json.dumps(names))
    return target


def by_transformers(files: TokenizerFiles, model: Path, target: Path) -> Any:
    """The tokenizer as transformers loads it from a bundle, which has the files and the configuration of `model`."""
    from transformers import AutoTokenizer

    target.mkdir(exist_ok=True)
    shutil.copy(model / "config.json", target)
    files.save(str(target))
    return AutoTokenizer.from_pretrained(target)
