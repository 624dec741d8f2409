"""Inputs -> their embeddings, computed by actors: the driver may have neither a GPU nor a CPU to spare.

In: a bundle, some thousand inputs. Out: float32 [N, E] on the driver. Not here: embeddings themselves
(inference/embeddings.py), the actors (actor_pool.py).
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np

from textcls.batch.actor_pool import plan_pool, run_on_pool
from textcls.bundle import Bundle
from textcls.inference.classifier import Classifier
from textcls.inference.embeddings import Embedder
from textcls.settings.scale import ScaleSpec
from textcls.text.text_input import TextInput

# An actor takes seconds to start, so each has at least so many inputs.
_INPUTS_OF_AN_ACTOR = 2_000


@dataclass(frozen=True)
class EmbeddingPool:
    """Calling it with inputs gives their embeddings, float32 [N, E], in order.

    Attributes:
        bundle: whose encoder makes them.
        scale: the actors.
        say: shows the user one line.
    """

    bundle: Bundle
    scale: ScaleSpec
    say: Callable[[str], None]

    def __call__(self, inputs: Sequence[TextInput]) -> np.ndarray:
        """Starts the actors, and ends them."""
        size = plan_pool(self.scale, items=-(-len(inputs) // _INPUTS_OF_AN_ACTOR))
        self.say(f"embedding {len(inputs):,} rows that may be worth a label: {size}")
        parts = [[inputs[row] for row in rows] for rows in np.array_split(np.arange(len(inputs)), size.count)]
        found = dict(run_on_pool(_embed, parts, size, self.bundle, on_rows=lambda rows: None))
        return np.concatenate([found[position] for position in range(len(parts))])


def _embed(classifier: Classifier, inputs: Sequence[TextInput]) -> Generator[int, None, np.ndarray]:
    """Yields the number of rows done; returns their embeddings."""
    embedder = Embedder.of_bundle(classifier.bundle, device=classifier.device, precision=classifier.precision)
    embeddings = embedder(inputs)
    yield len(inputs)
    return embeddings
