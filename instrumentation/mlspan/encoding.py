"""Stage 4, how the payload travels: as bytes where every exporter carries them, else as base64 text.

Reads the tracer provider, answers bytes or text. OpenTelemetry's API takes bytes since 1.45, and OTLP carries them; the
SDK's own console exporter, and processors of others that make JSON, fail on them and lose the whole batch. So bytes go
only where all that will see the span is known to take them. Cost: a tuple is compared by identity on each span; what is
behind the provider is looked at again only when the tuple is another one.
"""

from typing import Any, Final

from opentelemetry import trace
from opentelemetry.trace import TracerProvider
from opentelemetry.version import __version__ as _api_version

API_TAKES_BYTES: Final = tuple(int(part) for part in _api_version.split(".")[:2]) >= (1, 45)
_CARRIERS: Final = ("opentelemetry.exporter.otlp.", "opentelemetry.sdk.trace.export.in_memory_span_exporter")
_OWN: Final = "opentelemetry."
_NOT_SEEN: Final = ("not seen",)


class Encoding:
    """Whether payloads go as bytes; one object per instrumentation.

    Args:
        tracer_provider: the user's, or None for the global one, which may be set later.
    """

    __slots__ = ("_provider", "_seen", "carries_bytes")

    def __init__(self, tracer_provider: TracerProvider | None) -> None:
        self._provider = tracer_provider
        self._seen: Any = _NOT_SEEN
        self.carries_bytes = False

    def has_changed(self) -> bool:
        """Look at the provider; True when `carries_bytes` is another than before."""
        provider = self._provider or trace.get_tracer_provider()
        # The SDK has no public way to the processors; without this one, text is always right.
        processors = getattr(getattr(provider, "_active_span_processor", None), "_span_processors", None)
        if processors is self._seen:
            return False
        before, self._seen = self.carries_bytes, processors
        self.carries_bytes = API_TAKES_BYTES and processors is not None and all(map(_takes_bytes, processors))
        return self.carries_bytes != before


def _takes_bytes(processor: Any) -> bool:
    exporter = getattr(processor, "span_exporter", None)
    if exporter is None:
        # OpenTelemetry's own processors without an exporter read or add attributes, and serialise nothing.
        return type(processor).__module__.startswith(_OWN)
    return type(exporter).__module__.startswith(_CARRIERS)
