"""What the tests read of a span."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from opentelemetry.sdk.trace import ReadableSpan

from mlspan.deferred import deferred
from mlspan.payload import Payload, decode
from tests.instrumentation.conftest import Recorder


class Seen:
    """One span, taken apart."""

    def __init__(self, span: ReadableSpan) -> None:
        self.span = span
        self.attributes: dict[str, Any] = dict(span.attributes or {})
        scope = span.instrumentation_scope
        self.scope: dict[str, Any] = dict((scope.attributes if scope else None) or {})
        data = self.attributes.get("ml.payload")
        self.payload: Payload | None = None if data is None else decode(data)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features."""
        return tuple(self.scope.get("ml.feature.names", ()))

    @property
    def cells(self) -> NDArray[np.float32]:
        """Features of the captured rows."""
        assert self.payload is not None
        return self.payload.cells.view("<f4")

    def feature(self, name: str) -> NDArray[np.float32]:
        """One feature of the captured rows."""
        return self.cells[:, self.names.index(name)]


def last(recorder: Recorder) -> Seen:
    """The last span that has ended since the last look."""
    assert deferred.drain(30)
    return Seen(recorder.spans()[-1])
