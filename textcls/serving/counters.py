"""Prometheus metrics of one replica.

In: events of requests, texts and batches. Out: the text of GET /metrics. Not here: Ray's metrics of replicas and
proxies, which Ray exports itself.

Each replica has a registry: behind a proxy a scrape reaches one replica, and `textcls_replica_info` names it.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Counters:
    """Counters and histograms of one replica.

    Args:
        replica: its name.
    """

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, replica: str) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)

        def histogram(name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"textcls_{name}", about, labels, buckets=buckets, registry=registry)

        self._replica = Gauge("textcls_replica_info", "Whose samples these are.", ["replica"], registry=registry)
        self._replica.labels(replica).set(1)
        self.requests = Counter("textcls_requests", "Requests answered.", ["path", "status"], registry=registry)
        self.texts = Counter("textcls_texts", "Texts, by label, `abstain` or error.", ["outcome"], registry=registry)
        self.loads = Counter("textcls_bundle_loads", "Bundles loaded, or not.", ["outcome"], registry=registry)
        self.tokens = Counter("textcls_tokens", "Tokens of scored texts, before any cut.", registry=registry)
        self.truncated = Counter("textcls_truncated_texts", "Texts seen only in part.", registry=registry)
        self.waiting = Gauge("textcls_waiting_texts", "Texts that have no answer yet.", registry=registry)
        self.request_seconds = histogram("request_seconds", "From a request to its answer.", _SECONDS, "path")
        self.queue_seconds = histogram("queue_seconds", "A request's wait for the model.", _SECONDS)
        self.batch_seconds = histogram("batch_seconds", "The model's time for a batch.", _SECONDS)
        self.batch_texts = histogram("batch_texts", "Texts of a batch.", _COUNTS)
        self.batch_tokens = histogram("batch_tokens", "Tokens of a batch.", tuple(32 * 2**n for n in range(12)))

    def batch(self, texts: int, tokens: int, seconds: float) -> None:
        """Counts a batch that the model has scored."""
        self.batch_texts.observe(texts)
        self.batch_tokens.observe(tokens)
        self.batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        return generate_latest(self._registry)
