"""Component types for the configuration tests: two exporters, two that are broken, and a connector."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from mlspan_processor.config import Components
from mlspan_processor.config.components import ComponentLoadError
from mlspan_processor.records import Signal
from mlspan_processor.testing import FakeExporter, fake_connector_type


class ZipkinSettings(BaseModel):
    """Settings of a queued exporter."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    endpoint: str
    """URL of the collector."""
    token: str = ""
    """Secret."""


class FakeZipkin(FakeExporter):
    """Takes traces only"""

    Config: ClassVar[Any] = ZipkinSettings
    signals: ClassVar[frozenset[Signal]] = frozenset({Signal.TRACES})


class PrometheusSettings(BaseModel):
    """Settings of an exporter that is scraped."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    endpoint: str
    """host:port to listen on."""


class FakePrometheus(FakeExporter):
    """Takes metrics only, without a queue"""

    Config: ClassVar[Any] = PrometheusSettings
    signals: ClassVar[frozenset[Signal]] = frozenset({Signal.METRICS})
    queued: ClassVar[bool] = False


class TestComponents(Components):
    """The fakes; "broken" fails at import as a third party's module may."""

    __test__ = False

    def __init__(self) -> None:
        super().__init__(
            exporters={
                "zipkin": FakeZipkin,
                "prometheus": FakePrometheus,
                "otlp_grpc": FakeZipkin,
                "strange": object,
                "broken": None,
            },
            connectors={"mlspan": fake_connector_type()},
        )
        self._entry_points = {}

    def get(self, kind: Any, name: str) -> Any:
        """Return the type; "broken" cannot be imported."""
        if name == "broken":
            raise ComponentLoadError('"broken" cannot be imported: ModuleNotFoundError: No module named "nothing"')
        return super().get(kind, name)
