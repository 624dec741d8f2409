"""Whether a tokenizer fits its model, and whether transformers makes the same token ids with it.

In: the prepared tokenizer, the model, the bundle that was made of both. Out: nothing, or the reason why texts would be
read otherwise. Not here: scores (rehearsed_scores.py), the order of the checks (rehearsal.py).
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from textcls.errors import ModelError
from textcls.modeling.batching import token_types
from textcls.text.text_input import TextInput
from textcls.text.tokenizer import InputTokenizer
from textcls.training.rehearsed_scores import FAILURES, unusable

# Texts on which the tokenizers library and transformers must agree: scripts, case, accents, white space.
_WORDS = ("The film was GREAT, 10/10!", "café cafe\u0301 幸せ 🙂", "Фильм\tfilm\n\n  film", "x" * 50, "a b " * 400)
# Those of masks, and a placeholder as a user may type it.
_IDENTIFIERS = ("Mail a.b@example.com,www.example.com,(555) 555-0100  or 192.0.2.7", "给13800000000打[EMAIL][email]")


def check_frame(name: str, input_tokenizer: InputTokenizer) -> None:
    """Refuses a tokenizer whose pairs textcls cannot cut as transformers does."""
    try:
        _ = input_tokenizer.frame
    except ValueError as error:
        raise ModelError(
            f"{name}: its tokenizer cannot be used for pairs: {error}",
            expected="the first text, then the second, with token types 0 in one part and 1 in the other, or 0 in both",
            todo="choose another model.pretrained for data.pair; BERT, RoBERTa, ELECTRA, DistilBERT, MPNet, DeBERTa "
            "and their kin work",
        ) from error


def check_vocabulary(name: str, model: Any, input_tokenizer: InputTokenizer) -> None:
    """Refuses a tokenizer with token ids that the model has no embeddings for."""
    try:
        rows = getattr(model.get_input_embeddings(), "num_embeddings", None)
    except NotImplementedError:  # a model that embeds characters by their hash
        rows = None
    if rows is not None and input_tokenizer.highest_id >= rows:
        raise ModelError(
            f"{name}: the tokenizer has token ids up to {input_tokenizer.highest_id}, "
            f"the model's embeddings end at {rows - 1}",
            expected="a tokenizer that belongs to the model",
            todo="copy the model's own tokenizer files beside it, or enlarge its embeddings "
            f"(model.resize_token_embeddings({input_tokenizer.highest_id + 1})) and save it again",
        )


def check_tokenizer(name: str, bundle: str, input_tokenizer: InputTokenizer) -> None:
    """Refuses a bundle whose tokenizer, as `transformers.pipeline` loads it, gives other ids than training sees."""
    from transformers import AutoTokenizer

    try:
        theirs = AutoTokenizer.from_pretrained(bundle)
    except (*FAILURES, OSError) as error:
        raise unusable(name, "transformers cannot load the tokenizer of its bundle", error) from error
    texts = [*_WORDS, *_IDENTIFIERS, " ".join(theirs.all_special_tokens)]
    for text, own, other in _encoded_by_both(input_tokenizer, theirs, texts):
        if own != other:
            raise ModelError(
                f"{name}: transformers makes other token ids of {text[:30]!r} than the tokenizers library: "
                f"{other[:12]}, not {own[:12]}",
                expected="a tokenizer.json that says all that the tokenizer does",
                todo="save the tokenizer anew: AutoTokenizer.from_pretrained(DIRECTORY).save_pretrained(DIRECTORY)",
            )


def _encoded_by_both(
    input_tokenizer: InputTokenizer, theirs: Any, texts: Sequence[str]
) -> Iterator[tuple[str, list[int], list[int]]]:
    """(text, our token ids, those of transformers) of each text; of pairs with the token types after the ids."""
    if not input_tokenizer.of_pairs:
        ours, _ = input_tokenizer(list(map(TextInput, texts)))
        yield from zip(texts, ours, theirs(texts, truncation=True)["input_ids"], strict=True)
        return
    for one, other in itertools.permutations(texts, 2):
        found = input_tokenizer.pairs([TextInput(one, other)])
        (ids,), expected = found.ids, theirs(one, other, truncation=True)
        types = [] if found.seconds is None else token_types(found.seconds, len(ids))[0].tolist()
        yield one, [*ids, *types], [*expected["input_ids"], *expected.get("token_type_ids", [])]
