"""Monitors as a user writes them: defaults, replacement, every bad file with exactly its messages, sentences."""

from pathlib import Path
from typing import Any

import pytest

from mlspan_processor.anomaly.findings import KINDS
from mlspan_processor.cli.validate import describe
from mlspan_processor.config import check, read
from mlspan_processor.errors import ConfigError
from mlspan_processor.monitors.defaults import DEFAULTS, with_defaults
from mlspan_processor.monitors.explain import sentence
from mlspan_processor.monitors.metrics import METHODS, METRICS, watched
from mlspan_processor.monitors.settings import Monitor

BAD = sorted((Path(__file__).parent / "bad").glob("*.yaml"))
GOOD = """
receivers: {otlp: {protocols: {grpc: }}}
exporters: {debug: }
connectors:
  mlspan:
    monitors:
      - {name: performance, metric: accuracy, models: ["fraud-*"], method: static, threshold: {below: 0.9}}
      - {name: rate, metric: rate, enabled: false}
    notify: {slack: {fraud: {url: "https://hooks.example.com/T0/secret", min_severity: critical}}}
service:
  pipelines:
    traces/in: {receivers: [otlp], exporters: [mlspan]}
    traces: {receivers: [mlspan], exporters: [debug]}
"""


def monitor(**settings: Any) -> Monitor:
    """A monitor called x."""
    return Monitor.model_validate({"name": "x", "metric": "accuracy", **settings})


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_bad_file_gives_exactly_its_messages(path: Path) -> None:
    """Every mistake names its key, its value and what would be valid; secrets are not shown."""
    lines = path.read_text("utf-8").splitlines()
    expected = [line.removeprefix("# expected: ") for line in lines if line.startswith("# expected: ")]
    with pytest.raises(ConfigError) as caught:
        check(read([str(path)], environ={}))
    assert [str(problem) for problem in caught.value.problems] == expected
    assert "T0/" not in str(caught.value)


def test_default_monitors_suit_each_other() -> None:
    """Names are distinct, and there is one for each kind of finding but the user's own."""
    assert len({one.name for one in DEFAULTS}) == len(DEFAULTS)
    kinds = {watched(one.metric).kind if one.kind == "realised" else "estimated" for one in DEFAULTS}
    assert kinds == set(KINDS) - {"custom"}


def test_a_monitor_replaces_the_default_one_of_its_name() -> None:
    """In its place; others come after; `enabled: false` takes one away; without defaults only the user's run."""
    mine = [monitor(name="errors", metric="errors", severity="info"), monitor(), monitor(name="rate", enabled=False)]
    running = with_defaults(mine)
    names = [one.name for one in DEFAULTS if one.name != "rate"]
    assert [one.name for one in running] == [*names, "x"]
    assert next(one for one in running if one.name == "errors").severity == "info"
    assert [one.name for one in with_defaults(mine, use_defaults=False)] == ["errors", "x"]


def test_every_metric_has_methods() -> None:
    """The first is the default; all of them are methods."""
    for name, row in METRICS.items():
        assert row.methods
        assert set(row.methods) <= set(METHODS)
        if row.methods[0] != "static":
            assert monitor(metric=name).uses == row.methods[0]
    assert monitor(metric="custom:cost").uses == "history"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"models": ["fraud-*@7"], "method": "static", "threshold": {"below": 0.9}, "severity": "critical"},
            "realised accuracy of fraud-*@7, in windows of 500 labels; alarms when one is below 0.9; critical;"
            " tells webhook/a, slack/b",
        ),
        (
            {"metric": "f1", "kind": "estimated", "method": "risk", "notify": []},
            "estimated F1 of *, in windows of 1,000 rows; alarms when it is worse than the reference by more than the"
            " tolerance, with its whole band; warning; tells nobody",
        ),
        (
            {"metric": "performance", "min_effect": 0.05, "notify": ["slack/b"]},
            "realised performance (accuracy, mean absolute error, or Hamming loss) of *, at every label; alarms when it"
            " is worse than the reference by more than 0.05, at level 0.005 of all time; warning; tells slack/b",
        ),
        (
            {"metric": "drift", "features": ["age", "in*"], "window": {"duration": "1h"}, "min_effect": 0.3},
            "drift of the features of * (features age, in*), in windows of 1h; alarms when one differs from the"
            " reference significantly (level 0.005 of a window) and by more than 0.3; warning; tells webhook/a,"
            " slack/b",
        ),
        (
            {"segments": ["region=eu*"], "window": {"rows": 2000}},
            "realised accuracy of * where region=eu*, in windows of 2,000 labels; alarms when one is far below the"
            " 250 or more before it; warning; tells webhook/a, slack/b",
        ),
        (
            {"metric": "latency", "method": "change_point"},
            "latency (95th percentile) of *, in windows of 1m; alarms when it rose and stays there, after 250"
            " or more; warning; tells webhook/a, slack/b",
        ),
        (
            {"metric": "rate", "method": "static", "threshold": {"below": 1, "above": 9}},
            "calls a second of *, in windows of 1m; alarms when one is below 1 or above 9; warning; tells webhook/a,"
            " slack/b",
        ),
        (
            {"metric": "errors", "method": "joint"},
            "calls that raise of *, in windows of 1m; alarms when it is unusual together with the model's other series;"
            " warning; tells webhook/a, slack/b",
        ),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(value),
)
def test_a_monitor_in_a_sentence(settings: dict[str, Any], expected: str) -> None:
    """What, of which models, over which window, when it alarms, how bad, who is told."""
    assert sentence(monitor(**settings), 1000, 500, ("webhook/a", "slack/b")) == expected


def test_validate_explains_monitors() -> None:
    """One line for each monitor that runs and each target; no secret is printed."""
    text = describe(check(read([f"yaml:{GOOD}"], environ={})))
    lines = text.splitlines()
    start = lines.index('monitors of connector "mlspan":') + 1
    assert lines[start] == (
        "  performance: realised accuracy of fraud-*, in windows of 1,000 labels; alarms when one is below 0.9;"
        " warning; tells slack/fraud"
    )
    assert not any(line.startswith("  rate:") for line in lines)
    assert lines[-1] == "  slack/fraud is told from severity critical on: opened, updated, closed"
    assert "secret" not in text
