"""What a user can set of monitors: what is watched, over which window, how it is judged, how bad it is, who is told.

A monitor that has the name of a default one takes its place; `enabled: false` takes it away. Every mistake is an error
at the start that names the key, the value and what would be valid.
"""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from mlspan_processor.anomaly.findings import Severity
from mlspan_processor.config.durations import PositiveDuration
from mlspan_processor.config.schema import Section
from mlspan_processor.errors import hint, quoted
from mlspan_processor.monitors.metrics import CUSTOM, FIGURES, GAPS, METRICS, RATES, TOGETHER, VERSIONS, Method, watched

DEFAULT_LEVEL: Final = 0.005
TOGETHER_LEVEL: Final = 0.001
"""Of the default monitor of all features together: what that test was seen to hold."""
DEFAULT_DURATION: Final = 60.0
"""Window of a metric of calls that says nothing else."""


def _metric(name: str) -> str:
    if name.startswith(CUSTOM) and len(name) > len(CUSTOM):
        return name
    if name not in METRICS:
        raise ValueError(f"there is no such metric{hint(name, [*METRICS, 'custom:NAME'], 'metrics')}")
    return name


class MonitorWindow(Section):
    """How much is judged at a time; windows do not overlap."""

    rows: int | None = Field(default=None, ge=1)
    """Rows of a window: predicted rows, or labelled ones for realised performance."""
    duration: PositiveDuration | None = None
    """Time of a window."""

    @model_validator(mode="after")
    def _one(self) -> "MonitorWindow":
        if (self.rows is None) == (self.duration is None):
            raise ValueError('set one of "rows" and "duration"')
        return self


class Threshold(Section):
    """Limits that a value must not pass."""

    below: float | None = None
    """Alarm where the value is lower."""
    above: float | None = None
    """Alarm where the value is higher."""

    @model_validator(mode="after")
    def _ordered(self) -> "Threshold":
        if self.below is None and self.above is None:
            raise ValueError('set "below", "above" or both')
        if self.below is not None and self.above is not None and self.below > self.above:
            raise ValueError(f'"below" ({self.below:g}) must not exceed "above" ({self.above:g})')
        return self


class Monitor(Section):
    """One thing to watch."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    """How events and messages call it; the name of a default monitor replaces that one."""
    metric: Annotated[str, AfterValidator(_metric)]
    """What is watched, a metric of docs/monitors.md, or "custom:NAME" for your own."""
    kind: Literal["realised", "estimated"] = "realised"
    """Of a performance figure: from labels, or without them."""
    models: list[str] = Field(default_factory=lambda: ["*"], min_length=1)
    """Patterns of model names, or of "name@version"; "*" stands for anything."""
    segments: list[str] = Field(default_factory=list)
    """Patterns of "segment=value" (section `segments`); without any, all rows together."""
    features: list[str] = Field(default_factory=lambda: ["*"], min_length=1)
    """Patterns of feature names, for drift, missing and unseen."""
    window: MonitorWindow | None = None
    """Absent: window.min_rows rows, window.min_labels labels, or a minute, as suits the metric."""
    method: Method | None = None
    """How a value is judged. Absent: the metric's own."""
    threshold: Threshold | None = None
    """Limits, for the method static."""
    min_effect: float | None = Field(default=None, gt=0)
    """The smallest change that matters, in the metric's unit. Absent: the method's own."""
    level: float = Field(default=DEFAULT_LEVEL, gt=0, le=0.2)
    """False-alarm level: of a window over all features (drift), or of the whole time (risk)."""
    severity: Severity = "warning"
    """How bad it is."""
    notify: list[str] | None = None
    """Who is told, as "type/name" of the section `notify`. Absent: everybody there; empty: nobody."""
    enabled: bool = True
    """False: not watched, which also takes a default monitor away."""

    @model_validator(mode="after")
    def _fits(self) -> "Monitor":
        row = watched(self.metric)
        if self.method is not None and self.method not in row.methods:
            raise ValueError(f'"{self.method}" does not suit the metric "{self.metric}"; valid: {quoted(row.methods)}')
        if self.uses == "static" and self.threshold is None:
            raise ValueError('the method "static" needs a "threshold" with "below" or "above"')
        if self.uses != "static" and self.threshold is not None:
            raise ValueError(f'"threshold" is for the method "static", not for "{self.uses}"')
        if self.kind == "estimated" and self.metric not in FIGURES:
            raise ValueError(f'"estimated" is for performance figures, not for the metric "{self.metric}"')
        if self.features != ["*"] and row.by != "feature":
            raise ValueError(f'"features" are for metrics of features, not for the metric "{self.metric}"')
        if self.segments and row.by != "segment":
            raise ValueError(f'"segments" are for performance figures, not for the metric "{self.metric}"')
        if self.metric in RATES and self.window is not None and self.window.rows is not None:
            raise ValueError(f'the window of the metric "{self.metric}" is a "duration"')
        if self.metric.startswith(CUSTOM) and self.window is not None:
            raise ValueError('your own metrics have windows of window.min_labels labels; "window" cannot be set')
        if self.metric in {*GAPS, VERSIONS} and self.window is not None:
            raise ValueError(
                f'the metric "{self.metric}" has windows of window.min_labels labels; "window" cannot be set'
            )
        if self.metric == TOGETHER and self.window is not None:
            raise ValueError(f'the metric "{self.metric}" has windows of window.min_rows rows; "window" cannot be set')
        bad = next((one for one in self.segments if "=" not in one), None)
        if bad is not None:
            raise ValueError(f'"{bad}" is no pattern of segments; expected "segment=value", such as "region=*"')
        return self

    @property
    def uses(self) -> Method:
        """The method, the metric's own where none is set."""
        return self.method or watched(self.metric).methods[0]
