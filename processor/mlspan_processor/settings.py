"""What a user can set of the connector ``mlspan``, in the Collector's style: durations as "10s", sections
within sections."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mlspan_processor.config.durations import Duration, PositiveDuration
from mlspan_processor.config.schema import Section
from mlspan_processor.errors import hint
from mlspan_processor.monitors.settings import Monitor
from mlspan_processor.notify.settings import Notify

Share = Annotated[float, Field(gt=0, le=1)]


class Queue(Section):
    """The input queue; a request that does not fit is refused, to be sent again."""

    max_requests: int = Field(default=1_000, ge=1)
    """Requests that may wait."""
    max_bytes: int = Field(default=128 * 1024 * 1024, ge=1024)
    """Bytes that may wait."""


class Window(Section):
    """Panes of event time and the trailing window over them."""

    pane: PositiveDuration = 10.0
    """Event time that a young pane covers."""
    max_panes: int = Field(default=360, ge=2)
    """Panes a model version; beyond it, neighbours merge and history gets coarser."""
    min_rows: int = Field(default=1_000, ge=1)
    """Weighted rows that the trailing window of drift holds at least, where there are as many."""
    min_labels: int = Field(default=1_000, ge=1)
    """Labelled rows that the trailing window of quality holds at least, where there are as many."""
    retention: PositiveDuration = 7 * 86400.0
    """How far back spans, predictions and labels count."""
    idle: PositiveDuration = 86400.0
    """A model version without spans for so long is forgotten."""
    max_bytes: int = Field(default=512 * 1024 * 1024, ge=1024 * 1024)
    """Bytes of all panes of all models; beyond it, the largest models' panes merge."""


class References(Section):
    """What "normal" is."""

    path: Path | None = None
    """A profile file, or a folder of them (*.json); read again when they change. Without a profile a model
    version learns."""
    learn_rows: int = Field(default=5_000, ge=100)
    """Rows that a model version without a profile learns its reference from."""
    save_dir: Path | None = None
    """Folder where learnt references are kept, and found after a restart."""


class Anomalies(Section):
    """How unusual one call's input is."""

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """ml.anomaly.score from which a call is flagged: 1 - it is the share of ordinary calls that are flagged,
    at most."""


class LabelSettings(Section):
    """Predictions that wait for their labels, and labels that wait for their predictions."""

    capacity: int = Field(default=1_000_000, ge=1, le=100_000_000)
    """Predicted rows kept for a later label; beyond it the oldest make way."""
    waiting_capacity: int = Field(default=100_000, ge=1, le=100_000_000)
    """Labels kept for a later prediction."""
    wait: PositiveDuration = 3600.0
    """How long such a label waits."""
    mature_after: Duration = 0.0
    """Age of a prediction from which its labels count for judgement, if the delays seen so far do not say later."""


class StoreSettings(Section):
    """Where state is kept, so that it survives a restart."""

    path: str | None = None
    """SQLite file that one processor writes. Without it `mlspan run` keeps one in `$XDG_STATE_HOME/mlspan` or
    `~/.local/state/mlspan`; "" keeps state in memory only."""
    sync: Literal["normal", "full"] = "normal"
    """What an acknowledged label survives: `normal` a process that is killed, `full` a loss of power too, at the price
    of one write to the disk for each request with labels."""
    snapshot_interval: PositiveDuration = 10.0
    """How often what has changed is written; a process that is killed loses so much of its statistics at most."""
    max_bytes: int = Field(default=1024 * 1024 * 1024, ge=1024 * 1024)
    """Bytes of the file, about; beyond it the oldest predictions and then the oldest panes are dropped from it. What is
    older than `window.retention` goes in any case."""


class Segments(Section):
    """What quality and estimates are cut by, beside the model version."""

    features: list[str] = Field(default_factory=list)
    """Features: a numeric one by fifths of its reference, a categorical one by category."""
    resource: list[str] = Field(default_factory=list)
    """Attributes of the resource that sends the spans, such as "host.name" or "cloud.region"."""
    max_values: int = Field(default=20, ge=2, le=1_000)
    """Values of one of them that are told apart, the most frequent ones."""
    groups: list[str] = Field(default_factory=list)
    """Those of them that are groups of people to be treated alike: fairness is told of them (docs/monitors.md)."""
    favourable: str | None = None
    """The class that is good to get. Absent: the last of two classes."""

    @model_validator(mode="after")
    def _groups_fit(self) -> Self:
        known = [*self.features, *self.resource]
        for name in self.groups:
            if name not in known:
                raise ValueError(
                    f'groups: "{name}" is neither in features nor in resource{hint(name, known, "segments")}'
                )
        return self


class MlspanSettings(Section):
    """Quality, drift and enriched spans out of model spans."""

    queue: Queue = Field(default_factory=Queue)
    """The input queue."""
    window: Window = Field(default_factory=Window)
    """Panes and windows."""
    reference: References = Field(default_factory=References)
    """References."""
    anomaly: Anomalies = Field(default_factory=Anomalies)
    """Anomaly score and flag."""
    labels: LabelSettings = Field(default_factory=LabelSettings)
    """Late labels."""
    store: StoreSettings = Field(default_factory=StoreSettings)
    """State on disk."""
    segments: Segments = Field(default_factory=Segments)
    """Parts of the rows with figures of their own."""
    monitors: list[Monitor] = Field(default_factory=list)
    """What is watched beside the default monitors (docs/monitors.md), or in their place."""
    default_monitors: bool = True
    """False: only `monitors`."""
    notify: Notify = Field(default_factory=Notify)
    """Who is told of incidents."""
    keep_payload: bool = False
    """Whether forwarded spans keep ml.payload beside what is made of it."""
    summary: bool = True
    """Whether forwarded spans get ml.input.summary."""
    metrics_flush_interval: PositiveDuration = 10.0
    """How often metrics are sent."""
    max_models: int = Field(default=1_000, ge=1)
    """Model versions with statistics; the spans of further ones are forwarded and counted together."""
    max_features: int = Field(default=1_000, ge=1)
    """Features a model version with drift metrics; further ones are in the report only."""

    @model_validator(mode="after")
    def _monitors_fit(self) -> Self:
        targets = self.notify.targets
        seen: set[str] = set()
        for place, monitor in enumerate(self.monitors):
            if monitor.name in seen:
                raise ValueError(f'monitors::{place}::name: "{monitor.name}" stands there twice')
            seen.add(monitor.name)
            for name in monitor.notify or ():
                if name not in targets:
                    raise ValueError(
                        f'monitors::{place}::notify: "{name}" is not configured{hint(name, targets, "targets")}'
                    )
        return self
