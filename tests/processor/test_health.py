"""Own metrics, logs and the memory limiter."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from mlspan_processor.config.schema import MemoryLimiter
from mlspan_processor.logs import RateLimit, setup
from mlspan_processor.memory_limiter import LimitedConsumer, MemoryGate, limits, total_memory_bytes
from mlspan_processor.records import RetryableError, Signal
from mlspan_processor.telemetry import METRICS, ROWS, Telemetry, memory_rss_bytes
from mlspan_processor.testing import FakeClock, Sink, trace_chunk

MIB = 1 << 20


def test_the_same_labels_give_the_same_series() -> None:
    """Counters are found again by name and labels."""
    telemetry = Telemetry()
    for amount in (1, 2):
        telemetry.items("mlspan_exporter_sent_{items}", Signal.LOGS, exporter="a").add(amount)
    telemetry.items("mlspan_exporter_sent_{items}", Signal.LOGS, exporter="b").add(5)
    assert telemetry.value("mlspan_exporter_sent_log_records", exporter="a") == 3
    assert telemetry.value("mlspan_exporter_sent_log_records") == 8


def test_a_metric_that_is_not_in_the_table_is_a_bug() -> None:
    """Names and labels are those of the table."""
    with pytest.raises(KeyError):
        Telemetry().counter("mlspan_something")
    with pytest.raises(KeyError, match="has the labels"):
        Telemetry().counter("mlspan_exporter_retries", backend="x")


def test_every_row_has_unit_and_description() -> None:
    """The table is complete, its names expand to each signal, and descriptions are sentences."""
    assert "mlspan_receiver_accepted_metric_points" in ROWS
    assert all(row.unit and row.description.endswith(".") for row in METRICS)


def test_prometheus_text_escapes_labels() -> None:
    """Quotes, backslashes and line ends in a component's name cannot break the page."""
    telemetry = Telemetry()
    telemetry.counter("mlspan_exporter_retries", exporter='a"b\\c\nd').add(2)
    assert 'mlspan_exporter_retries{exporter="a\\"b\\\\c\\nd"} 2\n' in telemetry.prometheus_text()


def test_process_metrics_are_plausible() -> None:
    """Uptime follows the clock; memory and CPU are this process's."""
    clock = FakeClock()
    telemetry = Telemetry(clock)
    clock.now += 5
    assert telemetry.value("mlspan_process_uptime") == 5
    assert telemetry.value("mlspan_process_cpu_seconds") > 0
    assert 10 * MIB < memory_rss_bytes() < 64 * 1024 * MIB


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Log into a string, as JSON."""
    text = io.StringIO()
    handler = setup("info", "json", text)
    yield text
    for name in ("mlspan_processor", "mlspan_exporters", "grpc", "aiohttp", "asyncio"):
        logger = logging.getLogger(name)
        logger.removeHandler(handler)
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


def test_json_logs_have_the_collectors_keys(stream: io.StringIO) -> None:
    """One object a line with level, time, caller and message; tracebacks stay inside."""
    try:
        raise ValueError("inner")
    except ValueError:
        logging.getLogger("mlspan_processor.test").exception('exporter "%s" failed', "a")
    logging.getLogger("mlspan_processor.test").debug("not written")
    record = json.loads(stream.getvalue())
    assert (record["level"], record["msg"]) == ("error", 'exporter "a" failed')
    assert "ValueError: inner" in record["stacktrace"]
    assert record["ts"].endswith("Z")


def test_repeated_messages_are_held_back(stream: io.StringIO) -> None:
    """The same message of the same component is written five times in ten seconds; others are not affected."""
    logger = logging.getLogger("mlspan_processor.test")
    for number in range(100):
        logger.warning('exporter "%s" refuses: %d', "a", number)
    logger.warning("another")
    assert len(stream.getvalue().splitlines()) == 6


def test_what_was_held_back_is_told_later() -> None:
    """The first message of the next period says how many were left out."""
    clock = FakeClock()
    limit = RateLimit(clock)

    def record() -> logging.LogRecord:
        return logging.LogRecord("x", logging.WARNING, "file.py", 1, 'exporter "%s"', ("a",), None)

    assert [limit.filter(record()) for _ in range(7)] == [True] * 5 + [False] * 2
    clock.now += 11
    later = record()
    assert limit.filter(later)
    assert later.getMessage() == 'exporter "a" (2 more like this were left out)'


def test_what_was_held_back_is_told_when_the_flood_has_ended(stream: io.StringIO) -> None:
    """The last message and the number of the others, once, when the period is over and nothing has come since."""
    clock = FakeClock()
    limit, handler = RateLimit(clock), logging.StreamHandler(stream)
    handler.addFilter(limit)
    records = [
        logging.LogRecord("x", logging.WARNING, "file.py", 1, 'exporter "%s" lost %d', ("a", number), None)
        for number in range(10)
    ]
    for one in records[:9]:
        handler.handle(one)
    limit.tell(handler, only_past=True)
    assert len(stream.getvalue().splitlines()) == 5
    clock.now += 11
    for _ in range(2):
        limit.tell(handler, only_past=True)
    handler.handle(records[9])
    assert stream.getvalue().splitlines()[5:] == [
        'exporter "a" lost 8 (3 more like this were left out)',
        'exporter "a" lost 9',
    ]


def test_what_was_held_back_is_told_at_the_end(stream: io.StringIO) -> None:
    """Without a next period, the last message and the number of the others are written when the program ends."""
    logger = logging.getLogger("mlspan_processor.test")
    for number in range(9):
        logger.warning('exporter "%s" lost %d', "a", number)
    handlers = logging.getLogger("mlspan_processor").handlers
    ((handler, limit),) = (
        (handler, limit) for handler in handlers for limit in handler.filters if isinstance(limit, RateLimit)
    )
    for _ in range(2):
        limit.tell(handler)
    messages = [json.loads(line)["msg"] for line in stream.getvalue().splitlines()]
    assert len(messages) == 6
    assert messages[-1] == 'exporter "a" lost 8 (3 more like this were left out)'


def gate(used: list[int], **settings: object) -> tuple[MemoryGate, FakeClock]:
    """Return a gate that measures what stands first in `used`."""
    clock = FakeClock()
    config = MemoryLimiter.model_validate({"limit_mib": 100, "spike_limit_mib": 20} | settings)
    return MemoryGate(config, "memory_limiter", clock=clock, used_bytes=lambda: used[0] * MIB), clock


def test_refuses_above_the_soft_limit_and_takes_again_below() -> None:
    """Above limit minus spike chunks get a retryable error; memory is measured once per interval."""
    used = [79]
    one, clock = gate(used)
    one.check()
    used[0] = 81
    one.check()  # still the measurement of this interval
    clock.now += 1
    with pytest.raises(RetryableError, match="81 MiB in use, above 80 MiB") as caught:
        one.check()
    assert caught.value.retry_after_seconds == 1.0
    used[0] = 50
    clock.now += 1
    one.check()


def test_refused_chunks_are_counted_and_not_handed_on() -> None:
    """The processor refuses the whole chunk, and counts its items."""
    sink, telemetry = Sink(), Telemetry()
    LimitedConsumer(gate([10])[0], sink, telemetry).consume(trace_chunk(3))
    with pytest.raises(RetryableError):
        LimitedConsumer(gate([90])[0], sink, telemetry).consume(trace_chunk(4))
    assert sink.items == 3
    assert telemetry.value("mlspan_processor_refused_spans", processor="memory_limiter") == 4


def test_hard_limit_collects_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit garbage is collected, at most every ten seconds."""
    collections: list[int] = []
    monkeypatch.setattr("gc.collect", lambda: collections.append(1))
    one, clock = gate([200])
    for _ in range(12):
        with pytest.raises(RetryableError):
            one.check()
        clock.now += 1
    assert len(collections) == 2


@pytest.mark.parametrize(
    ("settings", "hard", "soft"),
    [
        ({"limit_mib": 100}, 100, 80),
        ({"limit_mib": 100, "spike_limit_mib": 30}, 100, 70),
        ({"limit_percentage": 50}, 500, 400),
        ({"limit_percentage": 50, "spike_limit_percentage": 10}, 500, 400),
        ({"limit_mib": 100, "limit_percentage": 50}, 100, 80),
    ],
)
def test_limits(settings: dict[str, int], hard: int, soft: int) -> None:
    """MiB go before percentages; the spike is a fifth unless set."""
    found = limits(MemoryLimiter.model_validate(settings), lambda: 1000 * MIB)
    assert found == (hard * MIB, soft * MIB)


def test_total_memory_is_plausible() -> None:
    """The container's limit or the machine's memory."""
    assert total_memory_bytes() > 100 * MIB
