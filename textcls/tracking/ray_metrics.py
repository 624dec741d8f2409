"""The speed of a run as metrics of Ray, which each node exports for Prometheus.

In: the duration of each step, and now and then tokens/s and the padding ratio. Out: `textcls_step_seconds` per rank,
`textcls_tokens_per_s` and `textcls_padding_ratio` of the run. Not here: events (events.py).
"""

from collections.abc import Callable, Mapping
from typing import Any

from textcls.errors import one_line

# 3 ms to 49 s.
_STEP_SECONDS = [0.003 * 2**n for n in range(15)]


class StepMetrics:
    """Exports the steps of one rank. Metrics that fail are reported once, and the run goes on.

    Args:
        run_id: value of the tag `run`; the same as in the events.
        rank: value of the tag `rank`.
        say: takes one line for the user.
    """

    def __init__(self, run_id: str, rank: int, say: Callable[[str], None]) -> None:
        self._tags = {"run": run_id, "rank": str(rank)}
        self._rank, self._say = rank, say
        self._metrics: tuple[Any, Any, Any] | None = None
        self._failed = False

    def record(self, seconds: float, speed: Mapping[str, float]) -> None:
        """Exports a step of this rank.

        Args:
            seconds: how long it took.
            speed: latest `tokens_per_s` and `padding_ratio` of all ranks; empty before the first.
        """
        if self._failed:
            return
        try:
            self._metrics = self._metrics or self._registered()
            step_seconds, tokens_per_s, padding_ratio = self._metrics
            step_seconds.observe(seconds)
            # Ray forgets a gauge once it has been exported: it has to be set again and again.
            if speed and self._rank == 0:
                tokens_per_s.set(speed["tokens_per_s"])
                padding_ratio.set(speed["padding_ratio"])
        except Exception as error:
            self._failed = True
            self._say(f"Ray's metrics miss this run, which goes on: {one_line(error)}")

    def _registered(self) -> tuple[Any, Any, Any]:
        from ray.util.metrics import Gauge, Histogram

        keys = tuple(self._tags)
        metrics = (
            Histogram("textcls_step_seconds", "Duration of an optimizer step.", _STEP_SECONDS, keys),
            Gauge("textcls_tokens_per_s", "Training throughput, padding excluded.", keys),
            Gauge("textcls_padding_ratio", "Padded tokens / real tokens.", keys),
        )
        for metric in metrics:
            metric.set_default_tags(self._tags)
        return metrics
