"""Configuration: merging, references, durations, checks; every bad file with exactly its messages."""

from pathlib import Path
from typing import Any

import pytest

from mlspan_processor.config import Configuration, Kind, check, read
from mlspan_processor.config.durations import format_duration, parse_duration
from mlspan_processor.config.schema import OtlpReceiver, split_endpoint
from mlspan_processor.config.sources import default_text
from mlspan_processor.errors import ConfigError
from mlspan_processor.records import Signal
from tests.processor.bad_components import TestComponents

BAD = sorted((Path(__file__).parent / "bad_configs").glob("*.yaml"))
ROOT = Path(__file__).parents[2]
GOOD = """
receivers: {otlp: {protocols: {grpc: , http: {endpoint: ":4318"}}}}
processors: {memory_limiter: {limit_percentage: 75}}
connectors: {mlspan: }
exporters:
  zipkin:
    endpoint: http://z
    sending_queue: {queue_size: 5, batch: }
    retry_on_failure: {max_elapsed_time: 0}
  prometheus: {endpoint: "127.0.0.1:9464"}
extensions: {health_check: }
service:
  extensions: [health_check]
  pipelines:
    traces/in: {receivers: [otlp], processors: [memory_limiter], exporters: [mlspan]}
    traces: {receivers: [mlspan], exporters: [zipkin]}
    metrics: {receivers: [otlp, mlspan], exporters: [prometheus]}
"""


def load_text(*texts: str, settings: tuple[str, ...] = (), **environ: str) -> dict[str, Any]:
    """Read YAML texts in order."""
    return read([f"yaml:{text}" for text in texts], settings, environ)


def problems_of(document: dict[str, Any]) -> list[str]:
    """Return the messages of a bad document."""
    with pytest.raises(ConfigError) as caught:
        check(document, TestComponents())
    return [str(problem) for problem in caught.value.problems]


def good(*extra: str) -> Configuration:
    """Check GOOD with other YAML merged over it."""
    return check(load_text(GOOD, *extra), TestComponents())


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_bad_file_gives_exactly_its_messages(path: Path) -> None:
    """Every file under bad_configs fails with the messages of its first lines, all at once and in order."""
    expected = [
        line.removeprefix("# expected: ")
        for line in path.read_text("utf-8").splitlines()
        if line.startswith("# expected: ")
    ]
    with pytest.raises(ConfigError) as caught:
        check(read([str(path)], environ={}), TestComponents())
    assert [str(problem).replace(str(path), "FILE") for problem in caught.value.problems] == expected


def test_all_problems_are_listed_in_the_error() -> None:
    """The error's text has the number of problems and one line for each."""
    with pytest.raises(ConfigError, match=r"the configuration has 5 problems:\n  receivers::otlp") as caught:
        check(read([str(BAD[0].parent / "several_problems.yaml")], environ={}), TestComponents())
    assert len(str(caught.value).splitlines()) == 6


def test_good_configuration_is_wired_as_written() -> None:
    """Pipelines keep their order and parts; named protocols are served with their defaults."""
    configuration = good()
    assert list(configuration.pipelines) == ["traces/in", "traces", "metrics"]
    assert configuration.pipelines["metrics"].receivers == ("otlp", "mlspan")
    assert configuration.pipelines["traces"].signal is Signal.TRACES
    receiver = configuration.components[Kind.RECEIVER, "otlp"].settings
    assert isinstance(receiver, OtlpReceiver)
    assert receiver.protocols.grpc is not None
    assert receiver.protocols.grpc.endpoint == "127.0.0.1:4317"
    assert receiver.protocols.http is not None
    assert receiver.protocols.http.max_request_body_size == 20 * 1024 * 1024
    assert configuration.warnings == ()


def test_queue_settings_have_the_collectors_defaults() -> None:
    """A queued exporter has queue, retry and timeout beside its own keys; an unqueued one has none of them."""
    configuration = good()
    queue = configuration.components[Kind.EXPORTER, "zipkin"].queue
    assert queue is not None
    assert (queue.sending_queue.num_consumers, queue.sending_queue.queue_size) == (10, 5)
    assert queue.sending_queue.batch is not None
    assert queue.sending_queue.batch.min_size == 8192
    assert queue.retry_on_failure.initial_interval == 5.0
    assert queue.retry_on_failure.max_interval == 30.0
    assert queue.retry_on_failure.max_elapsed_time == 0.0
    assert queue.timeout == 5.0
    assert configuration.components[Kind.EXPORTER, "prometheus"].queue is None


def test_unqueued_exporter_refuses_queue_settings() -> None:
    """sending_queue on an exporter without a queue is an unknown key."""
    document = load_text(GOOD, "exporters: {prometheus: {sending_queue: {}}}")
    assert problems_of(document) == [
        'exporters::prometheus::sending_queue: unknown key "sending_queue". Valid keys: "endpoint"'
    ]


def test_unused_component_is_a_warning() -> None:
    """What is configured but not used does not run, and is told."""
    configuration = good("exporters: {zipkin/other: {endpoint: x}}")
    assert configuration.warnings == ('exporter "zipkin/other" is configured but not used',)
    assert (Kind.EXPORTER, "zipkin/other") not in configuration.components


def test_deprecated_exporter_name_is_accepted_and_told() -> None:
    """``otlp`` is ``otlp_grpc``, with a warning that says so."""
    configuration = good("exporters: {otlp/x: {endpoint: x}}\nservice: {pipelines: {traces: {exporters: [otlp/x]}}}")
    assert configuration.components[Kind.EXPORTER, "otlp/x"].type.name == "otlp_grpc"
    assert 'exporter "otlp/x": the type "otlp" is deprecated; it is now "otlp_grpc"' in configuration.warnings


def test_maps_merge_and_lists_replace() -> None:
    """Several sources merge as the Collector's do."""
    document = load_text("a: {b: 1, c: [1, 2], d: {e: 1}}", "a: {c: [3], d: {f: 2}}")
    assert document == {"a": {"b": 1, "c": [3], "d": {"e": 1, "f": 2}}}


def test_set_overrides_files() -> None:
    """--set takes dots or double colons, and YAML values."""
    document = load_text("a: {b: 1}", settings=("a.b=2", "a::c=[x, y]", "d=text"))
    assert document == {"a": {"b": 2, "c": ["x", "y"]}, "d": "text"}


def test_bad_set_is_a_problem() -> None:
    """A --set without "=" says what it should look like."""
    with pytest.raises(ConfigError, match=r'"--set exporters" is not of the form key=value'):
        load_text("a: 1", settings=("exporters",))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${env:PORT}", 4317),
        ("${PORT}", 4317),
        ("127.0.0.1:${env:PORT}", "127.0.0.1:4317"),
        ("${env:NOWHERE:-fallback}", "fallback"),
        ("${env:EMPTY:-fallback}", "fallback"),
        ("${env:EMPTY}", None),
        ("${env:LIST}", ["a", "b"]),
        ("$${env:PORT}", "${env:PORT}"),
        ("a$$b", "a$b"),
        ("costs 5$", "costs 5$"),
        ("${env:ODD}", "p@ss: {word"),
        ("${env:NESTED}", 4317),
        ("${env:OPEN}", "p${word"),
    ],
)
def test_references(text: str, expected: object) -> None:
    """References are replaced; a whole value is read as YAML, a part stays text, $$ is a dollar."""
    environ = {
        "PORT": "4317",
        "EMPTY": "",
        "LIST": "[a, b]",
        "ODD": "p@ss: {word",
        "NESTED": "${env:PORT}",
        "OPEN": "p${word",
    }
    assert read(["yaml:a: x"], [f"a='{text}'"], environ) == {"a": expected}


def test_file_reference(tmp_path: Path) -> None:
    """${file:path} is the file's text without its last line end."""
    (tmp_path / "token").write_text("secret\n", "utf-8")
    assert read(["yaml:a: x"], [f"a=${{file:{tmp_path}/token}}"], {}) == {"a": "secret"}


def test_endless_reference_ends() -> None:
    """A variable that holds itself is a problem, not a hang."""
    with pytest.raises(ConfigError, match="endless"):
        read(["yaml:a: x"], ["a=${env:A}"], {"A": "${env:A}"})


def test_sources_by_scheme(tmp_path: Path) -> None:
    """Paths, file:, env: and yaml: (with double colons) are sources."""
    path = tmp_path / "a.yaml"
    path.write_text("a: 1", "utf-8")
    sources = [str(path), "env:MORE", "yaml:c::d: 3", f"file:{path}"]
    assert read(sources, environ={"MORE": "b: 2"}) == {"a": 1, "b": 2, "c": {"d": 3}}


def test_missing_file_is_a_problem() -> None:
    """A file that is not there is named."""
    with pytest.raises(ConfigError, match=r'cannot read "nowhere\.yaml": No such file or directory'):
        read(["nowhere.yaml"])


def test_documented_example_is_the_embedded_default() -> None:
    """collector-config.yaml says the same as the default, with comments."""
    assert read([str(ROOT / "collector-config.yaml")], environ={}) == read(["yaml:" + default_text()], environ={})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10s", 10), ("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400), ("0", 0), ("100us", 1e-4), ("2h45m", 9900)],
)
def test_durations(text: str, seconds: float) -> None:
    """Go durations become seconds."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "10", "s", "10 s", "-1s", "1s1", "1d", None, True, 5, 2.5, []])
def test_bad_durations(text: object) -> None:
    """What Go would not parse is refused, and so are negative times."""
    with pytest.raises(ValueError, match='expected a duration such as "500ms"'):
        parse_duration(text)


@pytest.mark.parametrize("seconds", [0, 0.2, 5, 90, 300, 5400])
def test_duration_round_trip(seconds: float) -> None:
    """What is written is read again."""
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["4317", "host:", "host:x", "host:65536", "http://h:1", "::1:4317", "[zz]:1"])
def test_bad_endpoints(text: str) -> None:
    """Only host:port and [IPv6]:port are endpoints."""
    with pytest.raises(ValueError, match=r"expected host:port|IPv6"):
        split_endpoint(text)
