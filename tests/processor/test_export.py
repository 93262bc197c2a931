"""Queue, batching, retries and fan-out: nothing taken is lost without a count, and one dead backend harms nobody."""

import threading
import time
from collections.abc import Callable

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from mlspan_processor.batching import SIZERS
from mlspan_processor.config.schema import Batch, Queued, Retry, SendingQueue
from mlspan_processor.export import DirectExporter, FanOut, QueuedExporter
from mlspan_processor.records import ExportResult, PermanentError, RetryableError, Signal
from mlspan_processor.sending_queue import BoundedQueue, QueueFullError, QueueStoppedError, TooLargeError
from mlspan_processor.signals import validated
from mlspan_processor.telemetry import Telemetry
from mlspan_processor.testing import FakeClock, FakeExporter, Refusing, Sink, trace_chunk


class Setup:
    """A fake backend behind a queue, on a clock that only moves when told to."""

    def __init__(self, queue: SendingQueue | None = None, retry: Retry | None = None) -> None:
        self.exporter = FakeExporter()
        self.telemetry = Telemetry()
        self.clock = FakeClock()
        settings = Queued(sending_queue=queue or SendingQueue(num_consumers=1), retry_on_failure=retry or Retry())
        self.queued = QueuedExporter(
            self.exporter,
            "fake",
            Signal.TRACES,
            settings,
            self.telemetry,
            clock=self.clock,
            sleep=self.clock.sleep,
        )

    def lost(self, reason: str) -> float:
        """Return spans lost after they were taken."""
        return self.telemetry.value("mlspan_exporter_send_failed_spans", reason=reason)

    def sent(self) -> float:
        """Return spans the backend took."""
        return self.telemetry.value("mlspan_exporter_sent_spans")


def until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds; fail after 20 seconds."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def span_ids(data: bytes) -> list[int]:
    """Return the ids of all spans, in order."""
    request = ExportTraceServiceRequest.FromString(data)
    return [
        int.from_bytes(span.span_id, "big")
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def test_the_bytes_sent_are_the_bytes_taken() -> None:
    """A chunk passes the queue as the same object."""
    one = Setup()
    one.queued.start()
    chunk = trace_chunk(3)
    one.queued.consume(chunk)
    one.exporter.sink.wait_for(3)
    assert one.exporter.sink.chunks[0] is chunk
    assert one.queued.shutdown(5) == 0
    assert one.sent() == 3


def test_a_retryable_failure_is_tried_again_until_it_passes() -> None:
    """Attempts wait 5 s, 7.5 s, … and at least what the backend asks for."""
    one = Setup(retry=Retry(randomization_factor=0))
    one.exporter.answers = [RetryableError("busy"), RetryableError("busy", 60.0), RetryableError("busy")]
    one.queued.start()
    before = one.clock.now
    one.queued.consume(trace_chunk(2))
    one.exporter.sink.wait_for(2)
    one.queued.shutdown(5)
    assert one.clock.now - before == pytest.approx(5 + 60 + 11.25)
    assert one.telemetry.value("mlspan_exporter_retries") == 3
    assert one.sent() == 2


def test_retries_end_after_max_elapsed_time(caplog: pytest.LogCaptureFixture) -> None:
    """What a dead backend never takes is dropped, counted and logged; the line names the exporter once."""
    one = Setup(retry=Retry.model_validate({"randomization_factor": 0, "max_elapsed_time": "20s"}))
    one.exporter.answers = [RetryableError("fake: down") for _ in range(50)]
    one.queued.start()
    one.queued.consume(trace_chunk(2))
    one.queued.consume(trace_chunk(1))
    until(lambda: one.lost("retries") == 3)
    one.queued.shutdown(5)
    assert one.sent() == 0
    assert 'exporter "fake" lost 2 spans (retries): down' in caplog.messages
    # 5 s, 7.5 s; 11.25 s more would exceed 20 s: three attempts each.
    assert one.exporter.calls.count("export") == 6


def test_a_permanent_failure_is_not_tried_again() -> None:
    """PermanentError, and any other exception, lose the chunk at once."""
    one = Setup()
    one.exporter.answers = [PermanentError("no"), ValueError("a bug")]
    one.queued.start()
    one.queued.consume(trace_chunk(2))
    one.queued.consume(trace_chunk(3))
    one.queued.consume(trace_chunk(4))
    one.exporter.sink.wait_for(4)
    one.queued.shutdown(5)
    assert (one.lost("permanent"), one.lost("error"), one.sent()) == (2, 3, 4)


def test_partial_success_counts_what_was_rejected() -> None:
    """Rejected items are lost, the others sent, and nothing is sent again."""
    one = Setup()
    one.exporter.answers = [ExportResult(3, "too old")]
    one.queued.start()
    one.queued.consume(trace_chunk(10))
    one.exporter.sink.wait_for(10)
    one.queued.shutdown(5)
    assert (one.lost("rejected"), one.sent()) == (3, 7)


@pytest.mark.parametrize(
    ("sizer", "capacity", "fits"), [("requests", 3, 3), ("items", 31, 3), ("bytes", 3 * len(trace_chunk(10).data), 3)]
)
def test_a_full_queue_refuses(sizer: str, capacity: int, fits: int) -> None:
    """Beyond its capacity in requests, items or bytes the queue asks the sender to come again, and counts."""
    one = Setup(SendingQueue.model_validate({"queue_size": capacity, "sizer": sizer}))
    for _ in range(fits):
        one.queued.consume(trace_chunk(10))
    with pytest.raises(QueueFullError) as caught:
        one.queued.consume(trace_chunk(10))
    assert caught.value.retry_after_seconds == 1.0
    assert one.telemetry.value("mlspan_exporter_enqueue_failed_spans", reason="full") == 10
    assert one.telemetry.value("mlspan_exporter_queue_capacity", signal="traces") == capacity
    assert one.telemetry.value("mlspan_exporter_queue_size", signal="traces") > 0


def test_what_is_being_sent_counts_as_in_the_queue() -> None:
    """Memory is bounded: room is free only when the backend has answered."""
    one = Setup(SendingQueue(num_consumers=1, queue_size=1))
    one.exporter.gate.clear()
    one.queued.start()
    one.queued.consume(trace_chunk(1))
    with pytest.raises(QueueFullError):
        one.queued.consume(trace_chunk(1))
    one.exporter.gate.set()
    one.exporter.sink.wait_for(1)
    one.queued.shutdown(5)


def test_a_request_larger_than_the_queue_is_refused_for_good() -> None:
    """It could never fit: sending it again cannot help."""
    one = Setup(SendingQueue(queue_size=5, sizer="items"))
    with pytest.raises(TooLargeError, match="a request of 6 items exceeds queue_size"):
        one.queued.consume(trace_chunk(6))
    assert one.telemetry.value("mlspan_exporter_enqueue_failed_spans", reason="too_large") == 6


def test_block_on_overflow_waits_for_room() -> None:
    """The sender waits, and everything arrives."""
    one = Setup(SendingQueue(num_consumers=1, queue_size=1, block_on_overflow=True))
    one.queued.start()
    for _ in range(50):
        one.queued.consume(trace_chunk(1))
    assert one.queued.shutdown(10) == 0
    assert one.exporter.sink.items == 50


def test_a_blocked_sender_is_let_go_at_shutdown() -> None:
    """A sender that waits for room hears that the processor stops."""
    queue = BoundedQueue(SendingQueue(queue_size=1, block_on_overflow=True))
    queue.put(trace_chunk(1))
    errors: list[Exception] = []

    def put() -> None:
        try:
            queue.put(trace_chunk(1))
        except QueueStoppedError as error:
            errors.append(error)

    thread = threading.Thread(target=put)
    thread.start()
    queue.close()
    thread.join(10)
    assert len(errors) == 1


def test_wait_for_result_gives_the_senders_answer() -> None:
    """The sender waits for the backend, and hears its refusal."""
    one = Setup(SendingQueue(num_consumers=2, wait_for_result=True))
    one.exporter.answers = [PermanentError("schema unknown")]
    one.queued.start()
    with pytest.raises(PermanentError, match="schema unknown"):
        one.queued.consume(trace_chunk(1))
    one.queued.consume(trace_chunk(2))
    assert one.exporter.sink.items == 2
    one.queued.shutdown(5)


def test_many_attempts_that_hang_do_not_add_up_at_shutdown() -> None:
    """What is in flight when the time is up is waited for once, not once per thread."""
    exporter = FakeExporter()
    exporter.gate.clear()
    settings = Queued(sending_queue=SendingQueue(num_consumers=10))
    queued = QueuedExporter(exporter, "fake", Signal.TRACES, settings, Telemetry())
    queued.start()
    for _ in range(10):
        queued.consume(trace_chunk(1))
    started = time.monotonic()
    assert queued.shutdown(0) == 10
    assert time.monotonic() - started < 0.5
    exporter.gate.set()


def test_batches_are_joined_bytes() -> None:
    """Chunks leave together once min_size is reached; the joined bytes are one valid message."""
    batch = Batch.model_validate({"min_size": 5, "flush_timeout": "1h"})
    one = Setup(SendingQueue(num_consumers=2, batch=batch))
    one.queued.start()
    for _ in range(5):
        one.queued.consume(trace_chunk(2))
    one.exporter.sink.wait_for(6)
    first = one.exporter.sink.chunks[0]
    assert first.items == 6
    assert span_ids(first.data) == [1, 2, 1, 2, 1, 2]
    assert one.queued.shutdown(5) == 0  # what waits for company leaves at shutdown
    assert one.exporter.sink.items == 10


def test_a_small_batch_leaves_after_the_flush_timeout() -> None:
    """flush_timeout bounds the wait for company."""
    exporter = FakeExporter()
    batch = Batch.model_validate({"min_size": 100, "flush_timeout": "50ms"})
    settings = Queued(sending_queue=SendingQueue(batch=batch))
    queued = QueuedExporter(exporter, "fake", Signal.TRACES, settings, Telemetry())
    queued.start()
    queued.consume(trace_chunk(1))
    exporter.sink.wait_for(1)
    queued.shutdown(5)


@pytest.mark.parametrize("sizer", ["items", "bytes"])
def test_max_size_splits_batches(sizer: str) -> None:
    """No batch exceeds max_size, and no span is lost, doubled or reordered."""
    limit = 7 if sizer == "items" else len(trace_chunk(7).data) + 60
    batch = Batch.model_validate({"min_size": 0, "max_size": limit, "sizer": sizer, "flush_timeout": "10ms"})
    one = Setup(SendingQueue(num_consumers=1, batch=batch))
    one.queued.consume(trace_chunk(20))
    one.queued.consume(trace_chunk(3))
    one.queued.start()
    assert one.queued.shutdown(5) == 0
    chunks = one.exporter.sink.chunks
    assert all(SIZERS[sizer](chunk) <= limit for chunk in chunks)
    assert [number for chunk in chunks for number in span_ids(chunk.data)] == [*range(1, 21), 1, 2, 3]
    assert all(validated(Signal.TRACES, chunk.data).items == chunk.items for chunk in chunks)
    assert one.telemetry.value("mlspan_exporter_queue_size") == 0


def test_shutdown_drains_the_queue() -> None:
    """What was taken before is sent, what comes after is refused."""
    one = Setup(SendingQueue(num_consumers=3))
    for _ in range(20):
        one.queued.consume(trace_chunk(1))
    one.queued.start()
    assert one.queued.shutdown(10) == 0
    assert one.exporter.sink.items == 20
    with pytest.raises(QueueStoppedError):
        one.queued.consume(trace_chunk(1))
    assert one.queued.shutdown(10) == 0  # safe twice


def test_shutdown_drops_and_counts_after_its_deadline() -> None:
    """A backend that does not answer cannot hold the process: the rest is counted as lost."""
    one = Setup(SendingQueue(num_consumers=1))
    one.exporter.gate.clear()
    one.queued.start()
    for _ in range(3):
        one.queued.consume(trace_chunk(2))
    assert one.queued.shutdown(0.0) == 6
    # The first may be in flight by then, and is cut off with the process.
    assert one.lost("shutdown") in (4, 6)
    one.exporter.gate.set()


def test_shutdown_cuts_waits_short() -> None:
    """A chunk that waits for its next attempt is tried again at once when the processor stops."""
    exporter = FakeExporter()
    exporter.answers = [RetryableError("down", 1_000.0)]
    telemetry = Telemetry()
    settings = Queued(retry_on_failure=Retry(max_elapsed_time=0))
    queued = QueuedExporter(exporter, "fake", Signal.TRACES, settings, telemetry)
    queued.start()
    queued.consume(trace_chunk(4))
    until(lambda: telemetry.value("mlspan_exporter_retries") == 1)
    assert queued.shutdown(20) == 0
    assert exporter.sink.items == 4


def test_shutdown_before_start_is_safe() -> None:
    """Nothing was taken, nothing is lost."""
    assert Setup().queued.shutdown(1) == 0


def test_fan_out_goes_on_when_one_refuses() -> None:
    """A refusal by one destination neither stops the others nor reaches the sender."""
    sink = Sink()
    FanOut([Refusing(RetryableError("full")), sink, Refusing(PermanentError("no"))]).consume(trace_chunk(2))
    assert sink.items == 2


def test_fan_out_survives_a_bug() -> None:
    """Any other exception counts as a refusal for good, and does not keep the chunk from the others."""
    sink = Sink()
    FanOut([Refusing(ZeroDivisionError()), sink]).consume(trace_chunk(2))
    assert sink.items == 2
    with pytest.raises(PermanentError, match="ZeroDivisionError while handling 1 items"):
        FanOut([Refusing(ZeroDivisionError())]).consume(trace_chunk(1))


def test_fan_out_tells_when_nobody_took_it() -> None:
    """Retryable when any of the refusals was, else permanent."""
    permanent, retryable = Refusing(PermanentError("no")), Refusing(RetryableError("full", 3.0))
    with pytest.raises(RetryableError) as caught:
        FanOut([permanent, retryable]).consume(trace_chunk())
    assert caught.value.retry_after_seconds == 3.0
    with pytest.raises(PermanentError):
        FanOut([permanent, permanent]).consume(trace_chunk())


def test_a_dead_backend_does_not_hold_up_the_others() -> None:
    """With one queue full of a dead backend's data, the other exporter gets everything."""
    dead, alive = Setup(SendingQueue(num_consumers=1, queue_size=2)), Setup()
    dead.exporter.gate.clear()
    both = FanOut([dead.queued, alive.queued])
    dead.queued.start()
    alive.queued.start()
    for _ in range(20):
        both.consume(trace_chunk(1))
    alive.exporter.sink.wait_for(20)
    assert dead.telemetry.value("mlspan_exporter_enqueue_failed_spans", reason="full") == 18
    dead.exporter.gate.set()
    alive.queued.shutdown(5)
    dead.queued.shutdown(5)


def test_direct_exporter_answers_the_sender() -> None:
    """Without a queue the sender hears what the exporter said, and it is counted."""
    exporter, telemetry = FakeExporter(), Telemetry()
    direct = DirectExporter(exporter, "fake", Signal.TRACES, None, telemetry)
    exporter.answers = [RetryableError("busy"), PermanentError("no")]
    with pytest.raises(RetryableError):
        direct.consume(trace_chunk(1))
    with pytest.raises(PermanentError):
        direct.consume(trace_chunk(2))
    direct.consume(trace_chunk(3))
    assert telemetry.value("mlspan_exporter_send_failed_spans", reason="permanent") == 2
    assert telemetry.value("mlspan_exporter_sent_spans") == 3


def test_a_queue_switched_off_still_retries() -> None:
    """``sending_queue: {enabled: false}`` retries in the sender's thread."""
    exporter, telemetry, clock = FakeExporter(), Telemetry(), FakeClock()
    exporter.answers = [RetryableError("busy")]
    direct = DirectExporter(exporter, "fake", Signal.TRACES, Queued(), telemetry, clock=clock, sleep=clock.sleep)
    direct.consume(trace_chunk(1))
    assert exporter.sink.items == 1


def test_what_waited_between_attempts_is_told_at_the_end() -> None:
    """Items that a worker gives up when the time is over are in the number of lost ones."""
    exporter, telemetry = FakeExporter(), Telemetry()
    exporter.answers = [RetryableError("fake: down") for _ in range(100)]
    settings = Queued(sending_queue=SendingQueue(num_consumers=1))
    queued = QueuedExporter(exporter, "fake", Signal.TRACES, settings, telemetry)
    queued.start()
    queued.consume(trace_chunk(3))
    until(lambda: telemetry.value("mlspan_exporter_retries") > 0)
    assert queued.shutdown(0.0) == 3
