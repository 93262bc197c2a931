"""Configuration step 3: which component types exist, what each takes, and for which signals.

Built-in parts stand in explicit tables; exporters are found by the entry point group ``mlspan_exporter``
and imported only when a configuration uses them, so that a broken third-party exporter harms nobody else.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from pydantic import BaseModel

from mlspan_processor.config import schema
from mlspan_processor.records import Signal

ALL_SIGNALS = frozenset(Signal)
EXPORTER_GROUP = "mlspan_exporter"


class Kind(Enum):
    """Kinds of components; the value is the section's name, without the s the word for one."""

    RECEIVER = "receivers"
    PROCESSOR = "processors"
    CONNECTOR = "connectors"
    EXPORTER = "exporters"
    EXTENSION = "extensions"

    @property
    def word(self) -> str:
        """The singular, for messages."""
        return self.value[:-1]


@dataclass(frozen=True, slots=True)
class ComponentType:
    """One type that a configuration can name.

    Attributes:
        kind: the section it stands in.
        name: the part of the id before the slash.
        config: model of its settings, without those of the queue.
        implementation: the class to build; None for the parts that the engine builds itself.
        consumes: signals it takes.
        produces: signals it hands on (receivers, processors, connectors).
        queued: whether the processor puts a sending queue before it (exporters).
        listens: from validated settings, every "host:port" it will listen on.
        summary: one line for ``mlspan components`` and the documentation.
    """

    kind: Kind
    name: str
    config: type[BaseModel]
    implementation: Any = None
    consumes: frozenset[Signal] = frozenset()
    produces: frozenset[Signal] = frozenset()
    queued: bool = False
    listens: Callable[[Any], list[tuple[str, str]]] = field(default=lambda _: [])
    summary: str = ""


def _otlp_endpoints(config: schema.OtlpReceiver) -> list[tuple[str, str]]:
    protocols = {"grpc": config.protocols.grpc, "http": config.protocols.http}
    return [(f"protocols::{name}::endpoint", one.endpoint) for name, one in protocols.items() if one is not None]


BUILT_IN: Mapping[tuple[Kind, str], ComponentType] = {
    (part.kind, part.name): part
    for part in (
        ComponentType(
            Kind.RECEIVER,
            "otlp",
            schema.OtlpReceiver,
            produces=ALL_SIGNALS,
            listens=_otlp_endpoints,
            summary="OTLP over gRPC and HTTP (protobuf and JSON)",
        ),
        ComponentType(
            Kind.PROCESSOR,
            "memory_limiter",
            schema.MemoryLimiter,
            consumes=ALL_SIGNALS,
            produces=ALL_SIGNALS,
            summary="refuses data while the process uses too much memory",
        ),
        ComponentType(
            Kind.EXTENSION,
            "health_check",
            schema.HealthCheck,
            listens=lambda config: [("endpoint", config.endpoint)],
            summary="an HTTP endpoint for liveness and readiness",
        ),
    )
}

CONNECTORS: Mapping[str, tuple[str, frozenset[Signal], frozenset[Signal], str]] = {
    "mlspan": (
        "mlspan_processor.connector:MlspanConnector",
        frozenset({Signal.TRACES, Signal.LOGS}),
        ALL_SIGNALS,
        "model spans and labels in; enriched spans, quality, drift and anomalies out",
    ),
}
"""Name: where the class is, signals in, signals out, summary. Imported when used."""

DEPRECATED: Mapping[str, str] = {"otlp": "otlp_grpc", "otlphttp": "otlp_http"}
"""Exporter names that the Collector has renamed: old to new."""


class ComponentLoadError(Exception):
    """A component's module cannot be imported, or is not what its entry point says."""


class Components:
    """Every component type that can be named; tests pass their own exporters and connectors."""

    def __init__(
        self,
        exporters: Mapping[str, Any] | None = None,
        connectors: Mapping[str, ComponentType] | None = None,
    ) -> None:
        self._exporters = dict(exporters or {})
        self._connectors = dict(connectors or {})
        self._entry_points = {point.name: point for point in entry_points(group=EXPORTER_GROUP)}

    def names(self, kind: Kind) -> list[str]:
        """Return the type names of a kind, sorted."""
        names: Iterable[str] = [name for one, name in BUILT_IN if one is kind]
        if kind is Kind.EXPORTER:
            names = {*names, *self._entry_points, *self._exporters}
        elif kind is Kind.CONNECTOR:
            names = {*names, *CONNECTORS, *self._connectors}
        return sorted(names)

    def accepts(self, kind: Kind, name: str) -> bool:
        """Return whether a type of this name exists, deprecated names included."""
        return name in self.names(kind) or (kind is Kind.EXPORTER and DEPRECATED.get(name) in self.names(kind))

    def get(self, kind: Kind, name: str) -> ComponentType:
        """Return the type; import it where needed.

        Raises:
            KeyError: there is none.
            ComponentLoadError: it cannot be imported.
        """
        if kind is Kind.EXPORTER:
            if name not in self.names(kind):
                name = DEPRECATED[name]
            return _exporter_type(name, self._exporters.get(name) or _load(self._entry_points[name].load, name))
        if kind is Kind.CONNECTOR:
            return self._connectors.get(name) or _connector_type(name)
        return BUILT_IN[kind, name]


def _load(load: Callable[[], Any], name: str) -> Any:
    try:
        return load()
    except Exception as error:  # whatever a third party's module does at import
        raise ComponentLoadError(f'"{name}" cannot be imported: {type(error).__name__}: {error}') from error


def _exporter_type(name: str, cls: Any) -> ComponentType:
    missing = [
        member for member in ("Config", "signals", "queued", "start", "export", "shutdown") if not hasattr(cls, member)
    ]
    if missing:
        raise ComponentLoadError(f'"{name}" ({cls!r}) is no exporter: it lacks {", ".join(missing)}')
    return ComponentType(
        Kind.EXPORTER,
        name,
        cls.Config,
        cls,
        consumes=frozenset(cls.signals),
        queued=cls.queued,
        listens=lambda config: _listening_fields(cls, config),
        summary=_summary(cls.__doc__),
    )


def _listening_fields(cls: Any, config: Any) -> list[tuple[str, str]]:
    """Exporters that answer at once and have an endpoint are scraped: they listen on it."""
    endpoint = getattr(config, "endpoint", None)
    return [("endpoint", endpoint)] if not cls.queued and isinstance(endpoint, str) else []


@cache
def _connector_type(name: str) -> ComponentType:
    path, consumes, produces, summary = CONNECTORS[name]
    module, _, attribute = path.partition(":")
    cls = _load(lambda: getattr(import_module(module), attribute), name)
    return ComponentType(Kind.CONNECTOR, name, cls.Config, cls, consumes, produces, summary=summary)


def _summary(docstring: str | None) -> str:
    """Return the beginning of a docstring, up to the first full stop, semicolon or line end."""
    return re.split(r"[.;\n]", (docstring or "").strip(), maxsplit=1)[0]
