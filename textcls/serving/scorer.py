"""A classifier behind a batcher; another bundle can replace it while it serves (hot reload).

In: inputs, from coroutines; a bundle's URI. Out: the outcome of each input, a `TextScores` or an error, and the
classifier that it comes from. Not here: HTTP (api.py), Ray (app.py), the model (inference/classifier.py).

A request stays with the classifier that tokenized it, since another one may have another tokenizer. So a new bundle is
loaded, tested and warmed up beside the old one, and takes over by one assignment, between two batches.
"""

import asyncio
import gc
import os
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

from textcls.errors import BundleError, TextclsError
from textcls.inference.classifier import Classifier, Encoded, ItemError, Scores
from textcls.serving.batcher import Batcher
from textcls.settings.recipe import ServeSpec
from textcls.text.text_input import TextInput

# Below so many characters a request is tokenized at once, in about 1 ms; above it, on a thread beside the event loop.
_SMALL_CHARS = 4000


class TextScores(NamedTuple):
    """One text's row of a batch's scores."""

    scores: Scores
    row: int


@dataclass(frozen=True)
class ScoredRequest:
    """What became of a request's texts.

    Attributes:
        outcomes: for each text its scores or why there are none, in order.
        classifier: that made them.
        encode_s: time to tokenize them.
        queue_s: wait for the model.
        model_s: from the model's first batch with one of them to the end of its last.
    """

    outcomes: list[TextScores | ItemError]
    classifier: Classifier
    encode_s: float
    queue_s: float
    model_s: float


class NotReady(Exception):
    """No bundle is loaded yet."""


class Scorer:
    """Scores the texts of many requests. For one event loop.

    Attributes:
        classifier: the one in use, None before the first `load`.
        problem: why the last bundle could not be loaded; empty if it could.
    """

    def __init__(self, spec: ServeSpec, *, threads: int | None = None) -> None:
        self.spec, self._threads = spec, threads
        self.classifier: Classifier | None = None
        self.problem = ""
        self.batcher: Batcher[Encoded, TextScores] = Batcher(
            _score,
            max_cost=spec.max_batch_tokens,
            max_items=spec.max_queued_texts,
            max_wait_s=spec.max_wait_s,
            prepare=_let_requests_go_first,
        )
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix="tokenizing")
        self._long_ones = 0

    async def load(self, uri: str, labels: Collection[str] | None = None) -> None:
        """Puts a bundle to use, once it has been verified, tested and warmed up.

        If it cannot be used, the one before it goes on, and `problem` says why.

        Args:
            uri: of the bundle.
            labels: that it has to have, unless `serve.allow_new_labels`; None for those of the one in use, if any.

        Raises:
            TextclsError: the first bundle cannot be used.
        """
        try:
            # On a thread that ends: a second thread that has run torch keeps a pool of its own, and while there are
            # more pools than cores, OpenMP's threads sleep at every step, which doubles the time of one short text.
            with ThreadPoolExecutor(1, thread_name_prefix="loading", initializer=_let_requests_go_first) as own:
                new = await asyncio.get_running_loop().run_in_executor(own, self._loaded, uri)
            if labels is None and self.classifier is not None:
                labels = self.classifier.labels
            if labels is not None and not self.spec.allow_new_labels:
                _check_labels(uri, new.labels, labels)
            # Through the queue like any text: the thread that runs the model has its own share of warming up.
            encoded = new.encode(["the " * 8])
            outcome = (await self.batcher.outcomes([(encoded[0], encoded[0].cost)], new)).outcomes[0]
            if isinstance(outcome, Exception):
                raise outcome
        except Exception as error:
            found = str(error) if isinstance(error, TextclsError) else repr(error)
            self.problem = found if uri in found else f"{uri}: {found}"
            if self.classifier is None:
                raise
            return
        self.classifier, self.problem = new, ""
        # What lives now lives long: the collector need not look at it again, which takes 50 ms each time.
        gc.unfreeze()
        gc.collect()
        gc.freeze()

    def _loaded(self, uri: str) -> Classifier:
        device = "auto" if self.spec.gpu_share else "cpu"
        new = Classifier.load(uri, device=device, precision=self.spec.precision, threads=self._threads)
        new.warm_up(batch_tokens=self.spec.max_batch_tokens)
        return new

    async def score(self, inputs: Sequence[TextInput]) -> ScoredRequest:
        """The scores of inputs, in order.

        Raises:
            QueueFull: too many texts are waiting.
            NotReady: no bundle is loaded.
        """
        classifier = self.classifier
        if classifier is None:
            raise NotReady
        with self.batcher.room(len(inputs)):
            began = time.perf_counter()
            encoded = await self._encoded(classifier, inputs)
            encode_s = time.perf_counter() - began
            places = [place for place, one in enumerate(encoded) if one.error is None]
            answer = await self.batcher.outcomes(
                [(encoded[place], encoded[place].cost) for place in places], classifier
            )
        outcomes: list[Any] = [one.error for one in encoded]
        for place, outcome in zip(places, answer.outcomes, strict=True):
            failed = isinstance(outcome, Exception)
            outcomes[place] = ItemError("scoring_failed", "the model failed on this text") if failed else outcome
        return ScoredRequest(outcomes, classifier, encode_s, answer.queue_s, answer.work_s)

    async def _encoded(self, classifier: Classifier, inputs: Sequence[TextInput]) -> list[Encoded]:
        # The tokenizer takes one caller at a time: while a long one has it, the event loop must not ask for it.
        if not self._long_ones and sum(one.chars for one in inputs) <= _SMALL_CHARS:
            return classifier.encode(inputs)
        run = asyncio.get_running_loop().run_in_executor
        self._long_ones += 1
        try:
            encoded: list[Encoded] = []
            for part in _parts(inputs):  # so that short requests get their turn between
                encoded += await run(self._tokenizing, classifier.encode, part)
            return encoded
        finally:
            self._long_ones -= 1

    async def close(self) -> None:
        """Ends the threads; what is waiting is cancelled."""
        await self.batcher.close()
        self._tokenizing.shutdown(wait=False, cancel_futures=True)


def _check_labels(uri: str, found: Collection[str], expected: Collection[str]) -> None:
    """Clients of one bundle may not know the labels of another."""
    if set(found) == set(expected):
        return
    new, gone = (sorted(set(one) - set(other))[:5] for one, other in ((found, expected), (expected, found)))
    raise BundleError(
        f"{uri} has other labels: {new or 'none'} are new, {gone or 'none'} are gone",
        expected="the labels of the bundle that serves",
        todo="start the service again, with this bundle or with --allow-new-labels",
    )


def _parts(inputs: Sequence[TextInput]) -> list[Sequence[TextInput]]:
    """The inputs in order, cut into runs of few characters."""
    parts, start, chars = [], 0, 0
    for place, one in enumerate(inputs):
        if chars and chars + one.chars > 8 * _SMALL_CHARS:
            parts.append(inputs[start:place])
            start, chars = place, 0
        chars += one.chars
    return [*parts, inputs[start:]]


def _let_requests_go_first() -> None:
    """Lowers the priority of this thread, and of those that it starts: on Linux it is a thread's own.

    The event loop has to come to the CPU to refuse what is too much. As one of five threads that want two cores it
    comes too late above three times the load that it can serve, and what it has not refused piles up before it. Ray
    starts its processes at 15; beside one of those, a thread of the lowest priority gets 0.4 of the time.
    """
    os.nice(19)


def _score(classifier: Any, items: list[Encoded]) -> list[TextScores]:
    scores = classifier.score_encoded(items)
    return [TextScores(scores, row) for row in range(len(items))]
