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
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from textcls.errors import BundleError, TextclsError
from textcls.inference.classifier import Classifier, Scores
from textcls.inference.encoding import Encoded, ItemError
from textcls.serving.batcher import Batcher
from textcls.settings.serve import ServeSpec
from textcls.text.text_input import TextInput

Result = TypeVar("Result")

# A request of at most this many characters is tokenized on the event loop, in about 1 ms; a longer one on a thread.
_SMALL_CHARS = 4000


class TextScores(NamedTuple):
    """One text's row of a batch's scores."""

    scores: Scores
    row: int


class Work(NamedTuple):
    """What a batch of one group runs: a function of the classifier and encoded texts, with an outcome for each."""

    run: Callable[[Classifier, list[Encoded]], Sequence[Any]]
    classifier: Classifier


@dataclass(frozen=True)
class ScoredRequest:
    """The outcomes of a request's texts.

    Attributes:
        outcomes: for each text, in order, its scores or its error.
        classifier: that scored them.
        encode_s: seconds to tokenize them.
        queue_s: seconds in the queue.
        model_s: seconds from the start of the first batch with one of them to the end of the last.
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
        problem: why the last bundle could not be loaded; empty if it was loaded.
    """

    def __init__(self, spec: ServeSpec, *, threads: int | None = None, identity_file: str = "") -> None:
        self.spec, self._threads, self._identity_file = spec, threads, identity_file
        self.classifier: Classifier | None = None
        self.problem = ""
        self.batcher: Batcher[Encoded, Any] = Batcher(
            _outcomes,
            max_cost=spec.max_batch_tokens,
            max_items=spec.max_queued_texts,
            max_wait_s=spec.max_wait_s,
            side_share=spec.explain_share,
            prepare=_let_requests_go_first,
        )
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix="tokenizing")
        self._long_ones = 0

    async def load(self, uri: str, labels: Collection[str] | None = None, pairs: bool | None = None) -> None:
        """Switches to a bundle after it has been verified, tested and warmed up.

        If the bundle cannot be used, the previous one keeps serving, and `problem` says why.

        Args:
            uri: of the bundle.
            labels: that it must have, unless `serve.allow_new_labels`; None for those of the bundle in use, if any.
            pairs: whether it must read pairs, under the same conditions.

        Raises:
            TextclsError: the first bundle cannot be used.
        """
        try:
            # On a thread that ends: every thread that has run torch keeps an OpenMP pool, and with more pool threads
            # than cores they sleep at every step, which doubles the time of one short text.
            with ThreadPoolExecutor(1, thread_name_prefix="loading", initializer=_let_requests_go_first) as own:
                new = await asyncio.get_running_loop().run_in_executor(own, self._loaded, uri)
            if self.classifier is not None:
                labels = self.classifier.labels if labels is None else labels
                pairs = self.classifier.pairs if pairs is None else pairs
            if labels is not None and not self.spec.allow_new_labels:
                _check_labels(uri, new.labels, labels)
            if pairs not in (None, new.pairs) and not self.spec.allow_new_labels:
                raise _other_inputs(uri, pairs=new.pairs)
            # Through the queue like any text, since the thread that runs the model must be warmed up as well.
            encoded = new.encode([TextInput("the " * 8, "the " * 8 if new.pairs else None)])
            outcome = (await self.batcher.outcomes([(encoded[0], encoded[0].cost)], Work(_score, new))).outcomes[0]
            if isinstance(outcome, Exception):
                raise outcome
        except Exception as error:
            found = str(error) if isinstance(error, TextclsError) else repr(error)
            self.problem = found if uri in found else f"{uri}: {found}"
            if self.classifier is None:
                raise
            return
        self.classifier, self.problem = new, ""
        # Objects that exist now are long-lived: without freezing, each full garbage collection takes 50 ms.
        gc.unfreeze()
        gc.collect()
        gc.freeze()

    def _loaded(self, uri: str) -> Classifier:
        device = "auto" if self.spec.gpu_share else "cpu"
        new = Classifier.load(
            uri,
            device=device,
            precision=self.spec.precision,
            threads=self._threads,
            identity_file=self._identity_file,
        )
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
                [(encoded[place], encoded[place].cost) for place in places], Work(_score, classifier)
            )
        outcomes: list[Any] = [one.error for one in encoded]
        for place, outcome in zip(places, answer.outcomes, strict=True):
            failed = isinstance(outcome, Exception)
            outcomes[place] = ItemError("scoring_failed", "the model failed on this text") if failed else outcome
        return ScoredRequest(outcomes, classifier, encode_s, answer.queue_s, answer.work_s)

    async def _encoded(self, classifier: Classifier, inputs: Sequence[TextInput]) -> list[Encoded]:
        # The tokenizer serves one caller at a time: the event loop must not wait for a long text to be tokenized.
        if not self._long_ones and sum(one.chars for one in inputs) <= _SMALL_CHARS:
            return classifier.encode(inputs)
        encoded: list[Encoded] = []
        with self._long_one():
            for part in _parts(inputs):  # so that short requests are tokenized in between
                encoded += await self._while_tokenizing(classifier.encode, part)
        return encoded

    async def off_loop(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """The result of a function that takes long, such as one that uses the tokenizer, run beside the event loop."""
        with self._long_one():
            return await self._while_tokenizing(function, *arguments)

    async def _while_tokenizing(self, function: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, function, *arguments)

    @contextmanager
    def _long_one(self) -> Iterator[None]:
        """Short requests are tokenized on the same thread meanwhile, in order."""
        self._long_ones += 1
        try:
            yield
        finally:
            self._long_ones -= 1

    async def close(self) -> None:
        """Stops the threads and cancels the queued texts."""
        await self.batcher.close()
        self._tokenizing.shutdown(wait=False, cancel_futures=True)


def _check_labels(uri: str, found: Collection[str], expected: Collection[str]) -> None:
    """Refuses other labels, which clients may not know."""
    if set(found) == set(expected):
        return
    new, gone = (sorted(set(one) - set(other))[:5] for one, other in ((found, expected), (expected, found)))
    raise BundleError(
        f"{uri} has other labels: {new or 'none'} are new, {gone or 'none'} are gone",
        expected="the labels of the bundle that serves",
        todo="start the service again, with this bundle or with --allow-new-labels",
    )


def _other_inputs(uri: str, *, pairs: bool) -> BundleError:
    kinds = ("pairs of texts", "one text")
    found, expected = kinds if pairs else kinds[::-1]
    return BundleError(
        f"{uri} scores {found}",
        expected=f"{expected}, as the bundle that serves",
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
    """Lowers the priority of this thread and of those that it starts; on Linux each thread has its own.

    The event loop needs CPU time to reject requests under overload. As one of five threads on two cores it gets too
    little above three times the sustainable load, and requests pile up before they can be rejected. Ray starts its
    processes at nice 15; beside one of those, a thread of the lowest priority gets 0.4 of the CPU time.
    """
    os.nice(19)


def _outcomes(work: Any, items: list[Encoded]) -> Sequence[Any]:
    return work.run(work.classifier, items)  # type: ignore[no-any-return]


def _score(classifier: Classifier, items: list[Encoded]) -> list[TextScores]:
    scores = classifier.score_encoded(items)
    return [TextScores(scores, row) for row in range(len(items))]
