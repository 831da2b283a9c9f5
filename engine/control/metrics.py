"""Figures for a monitoring system, in the text format of Prometheus."""

from collections.abc import Iterable

from msgspec import Struct
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from engine.control import views
from engine.model.node import NodeState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Figures(Struct, frozen=True, kw_only=True):
    """What is counted, at one moment.

    `node` is which of the `nodes` that share the queue this is, with `lease` seconds left; "": there are none.
    """

    health: views.HealthView
    events: dict[str, int]
    bad_hosts: int
    node: str = ""
    nodes: tuple[NodeState, ...] = ()
    lease: float = 0.0


def exposition(figures: Figures) -> bytes:
    """The figures as a scrape reads them."""
    registry = CollectorRegistry()
    registry.register(_Shown(figures))
    return generate_latest(registry)


class _Shown(Collector):
    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        health = self._figures.health
        entries = GaugeMetricFamily("smarthost_queue_recipients", "Recipients in the queue, by state", labels=["state"])
        for state, count in (("waiting", health.waiting), ("held", health.held), ("relaying", health.relaying)):
            entries.add_metric([state], count)
        yield entries
        states = GaugeMetricFamily("smarthost_state", "1 for the state the relay is in", labels=["state"])
        for name in ("relaying", "suspended", "draining", "sick"):
            states.add_metric([name], float(health.state == name))
        yield states
        events = CounterMetricFamily("smarthost_events", "What happened since the start, by kind", labels=["kind"])
        for kind, count in sorted(self._figures.events.items()):
            events.add_metric([kind], count)
        yield events
        if self._figures.node:
            yield from self._of_nodes()
        age = 0.0 if health.oldest is None else max(0.0, health.now - health.oldest)
        for name, what, value in (
            ("due_recipients", "Recipients waiting whose time has come", health.due),
            ("ready_recipients", "Recipients due that nothing keeps from being sent", health.ready),
            ("destinations", "Destinations with mail in the queue", health.destinations),
            ("oldest_seconds", "Age of the oldest message in the queue", age),
            ("accepted_per_second", "Recipients accepted a second, over ten seconds", health.rate_in),
            ("delivered_per_second", "Recipients delivered a second, over ten seconds", health.rate_out),
            ("connections", "Connections open to other hosts", health.connections),
            ("connections_allowed", "Connections that may be open at a time", health.max_connections),
            ("lookups", "Look-ups of ways under way", health.lookups),
            ("lookups_allowed", "Look-ups of ways that may be under way at a time", health.max_lookups),
            ("bad_hosts", "MX hosts marked bad", self._figures.bad_hosts),
            ("start_time_seconds", "When the engine started, in seconds since 1970", health.started),
        ):
            yield GaugeMetricFamily(f"smarthost_{name}", what, value)

    def _of_nodes(self) -> Iterable[Metric]:
        figures = self._figures
        labels = {"node": figures.node, "version": figures.health.version}
        which = GaugeMetricFamily("smarthost_node_info", "1, with which node this is", labels=list(labels))
        which.add_metric(list(labels.values()), 1.0)
        yield which
        nodes = GaugeMetricFamily("smarthost_nodes", "Engines that share the queue, by state", labels=["state"])
        for state, count in (
            ("live", sum(not node.is_lost for node in figures.nodes)),
            ("lost", sum(node.is_lost for node in figures.nodes)),
            ("drained", sum(node.is_drained for node in figures.nodes)),
        ):
            nodes.add_metric([state], count)
        yield nodes
        left = "Seconds for which this node may send if the database does not hear of it any more"
        yield GaugeMetricFamily("smarthost_lease_seconds", left, figures.lease)
