"""Which identifiers are found, beside presidio-analyzer: `python jobs/bench/mask_kinds.py`

The sentences are those of presidio-research: its templates, people and formats, made by its own generator (the package
presidio-evaluator), or read from its published file with `--data synth_dataset_v2.json`. Of each kind that both tools
have, the line says how many values are in the sentences, and for each tool its precision and recall. A value is found
if all of it is masked as its kind; a mask is right if it is on a value of its kind. Ours is measured twice: by shape,
as for the model, and with check digits, as for people. Presidio runs its own recognizers of these kinds without a
language model, which they do not need; where its kinds overlap, the one with the higher score counts, as in its
anonymizer.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import regex

from textcls.text.masks import KINDS, MaskKind

# Ours -> names in the data, names of presidio.
_NAMES = {
    "email": ({"EMAIL_ADDRESS"}, "EMAIL_ADDRESS"),
    "phone": ({"PHONE_NUMBER"}, "PHONE_NUMBER"),
    "url": ({"URL", "DOMAIN_NAME"}, "URL"),
    "ip": ({"IP_ADDRESS"}, "IP_ADDRESS"),
    "card": ({"CREDIT_CARD"}, "CREDIT_CARD"),
    "iban": ({"IBAN_CODE"}, "IBAN_CODE"),
}


class Span(NamedTuple):
    """A part of a text, of one kind."""

    kind: str
    start: int
    end: int


Sentence = tuple[str, list[Span]]


def main() -> None:
    """Prints a line for each kind and tool."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="a file of presidio-research; default: sentences are generated")
    parser.add_argument("--rows", type=int, default=6000, help="sentences to generate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", metavar="KIND", help="also print what is missed and what is masked in vain")
    arguments = parser.parse_args()
    records = _read(arguments.data) if arguments.data else _generated(arguments.rows, arguments.seed)
    sentences = [_sentence(record) for record in records]
    kinds = [kind for kind in KINDS.values() if kind.name in _NAMES]
    tools: dict[str, Callable[[str], list[Span]]] = {
        "by shape": lambda text: ours(kinds, text, confirm=False),
        "check digits": lambda text: ours(kinds, text, confirm=True),
        "presidio": presidio(),
    }
    print(f"{len(sentences)} sentences of {sum(len(text) for text, _ in sentences)} characters")
    for name, find in tools.items():
        started = time.perf_counter()
        found = [find(text) for text, _ in sentences]
        seconds = time.perf_counter() - started
        print(f"{name}: {seconds / len(sentences) * 1e6:.0f} us a sentence")
        for kind in _NAMES:
            print("  " + score(kind, sentences, found))
        if arguments.show:
            show(arguments.show, sentences, found)


def _read(path: str) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = json.loads(Path(path).read_text(encoding="utf-8"))
    return content


def _generated(rows: int, seed: int) -> list[dict[str, Any]]:
    from presidio_evaluator.data_generator import PresidioSentenceFaker

    random.seed(seed)
    generator = PresidioSentenceFaker(locale="en", lower_case_ratio=0.05, random_seed=seed)
    return [record.to_dict() for record in generator.generate_new_fake_sentences(rows)]


def _sentence(record: dict[str, Any]) -> Sentence:
    ours_of = {name: kind for kind, (names, _) in _NAMES.items() for name in names}
    spans = [
        Span(ours_of[span["entity_type"]], span["start_position"], span["end_position"])
        for span in record["spans"]
        if span["entity_type"] in ours_of
    ]
    return record["full_text"], spans


def ours(kinds: Iterable[MaskKind], text: str, *, confirm: bool) -> list[Span]:
    """What is masked, one kind after another; what is masked already is filled up, so that places stay the same."""
    found = []
    for kind in kinds:
        for match in list(regex.finditer(kind.pattern, text)):
            if not confirm or kind.confirmed is None or kind.confirmed(match[0]):
                found.append(Span(kind.name, match.start(), match.end()))
                text = text[: match.start()] + "\u2588" * len(match[0]) + text[match.end() :]
    return found


def presidio() -> Callable[[str], list[Span]]:
    """Presidio's own recognizers of these kinds."""
    from presidio_analyzer import EntityRecognizer
    from presidio_analyzer.predefined_recognizers import (
        CreditCardRecognizer,
        EmailRecognizer,
        IbanRecognizer,
        IpRecognizer,
        PhoneRecognizer,
        UrlRecognizer,
    )

    classes = (CreditCardRecognizer, EmailRecognizer, IbanRecognizer, IpRecognizer, PhoneRecognizer, UrlRecognizer)
    recognizers = [one() for one in classes]
    kind_of = {entity: kind for kind, (_, entity) in _NAMES.items()}

    def find(text: str) -> list[Span]:
        found = [one for each in recognizers for one in each.analyze(text, each.supported_entities) or []]
        kept: list[Any] = []
        for one in sorted(EntityRecognizer.remove_duplicates(found), key=lambda one: (-one.score, one.start - one.end)):
            if not any(one.start < other.end and other.start < one.end for other in kept):
                kept.append(one)
        return [Span(kind_of[one.entity_type], one.start, one.end) for one in kept]

    return find


def score(kind: str, sentences: list[Sentence], found: list[list[Span]]) -> str:
    """A line with the precision and recall of a kind."""
    values = [(i, span) for i, (_, spans) in enumerate(sentences) for span in spans if span.kind == kind]
    masks = [(i, span) for i, spans in enumerate(found) for span in spans if span.kind == kind]
    recalled = sum(_covered(span, found[i]) for i, span in values)
    right = sum(_on(span, sentences[i][1]) for i, span in masks)
    return (
        f"{kind:6} values {len(values):4}  precision {right / max(1, len(masks)):.3f} ({len(masks) - right} in vain)  "
        f"recall {recalled / max(1, len(values)):.3f} ({len(values) - recalled} missed)"
    )


def _covered(value: Span, masks: Iterable[Span]) -> bool:
    """Whether all of a value is masked as its kind."""
    left = set(range(value.start, value.end))
    for mask in masks:
        if mask.kind == value.kind:
            left -= set(range(mask.start, mask.end))
    return not left


def _on(mask: Span, values: Iterable[Span]) -> bool:
    """Whether a mask is on a value of its kind."""
    return any(one.kind == mask.kind and one.start < mask.end and mask.start < one.end for one in values)


def show(kind: str, sentences: list[Sentence], found: list[list[Span]]) -> None:
    """Prints what is missed of a kind, and what is masked as it in vain."""
    for line in sorted(set(_mistakes(kind, sentences, found))):
        print(f"    {line}")


def _mistakes(kind: str, sentences: list[Sentence], found: list[list[Span]]) -> Iterator[str]:
    for (text, values), masks in zip(sentences, found, strict=True):
        yield from (
            f"missed  {text[a:b]!r}" for name, a, b in values if name == kind and not _covered(Span(name, a, b), masks)
        )
        yield from (
            f"in vain {text[a:b]!r} in {text[max(0, a - 20) : b + 20]!r}"
            for name, a, b in masks
            if name == kind and not _on(Span(name, a, b), values)
        )


if __name__ == "__main__":
    main()
