"""Numbers about a running server, as Prometheus reads them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Of one server; memory and processor time of its process too."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.responses = Counter("fcn_responses", "Answers by HTTP status", ["status"], registry=self.registry)
        self.inside = Gauge("fcn_pictures_inside", "Received, waiting or worked on", registry=self.registry)
        self.pixels = Counter("fcn_pixels", "Labeled", registry=self.registry)
        self.batch = Histogram("fcn_batch", "Pictures that ran together", buckets=(1, 2, 4, 8), registry=self.registry)
        self.seconds = Histogram(
            "fcn_seconds", "Of a picture, by part", ["part"], buckets=SECONDS, registry=self.registry
        )

    def text(self) -> bytes:
        return generate_latest(self.registry)
