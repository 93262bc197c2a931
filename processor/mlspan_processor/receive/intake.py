"""Stage 1, common to both protocols: the bytes of one request in, a validated chunk to the pipelines,
counters.

Guarantee: a request is taken whole or not at all, and when `take` returns it has been handed over. The
bytes handed on are the bytes that came.
"""

import logging
from collections.abc import Mapping

from mlspan_processor.records import Consumer, PermanentError, RetryableError, Signal
from mlspan_processor.signals import SIGNALS, validated
from mlspan_processor.telemetry import Telemetry

_log = logging.getLogger(__name__)


class MalformedError(PermanentError):
    """The request is not what its content type says."""


class PipelineBugError(PermanentError):
    """Something behind the receiver raised what it should not; the log has the traceback."""


class Intake:
    """One receiver's way into the pipelines.

    Args:
        receiver: the receiver's id, for the counters.
        transport: "grpc" or "http".
        consumers: where each signal goes; a signal without a pipeline is absent.
        telemetry: the counters.
    """

    def __init__(
        self, receiver: str, transport: str, consumers: Mapping[Signal, Consumer], telemetry: Telemetry
    ) -> None:
        self.receiver = receiver
        self.consumers = dict(consumers)
        self._telemetry = telemetry
        self._transport = transport
        self._counters = {
            (outcome, signal): telemetry.items(
                f"mlspan_receiver_{outcome}_{{items}}", signal, receiver=receiver, transport=transport
            )
            for outcome in ("accepted", "refused", "failed")
            for signal in consumers
        }

    def take(self, signal: Signal, data: bytes) -> None:
        """Validate and hand over; an empty request succeeds.

        Raises:
            MalformedError: the sender's data is wrong.
            RetryableError: nothing was taken; the same data may come again.
            PermanentError: the pipeline refuses the data for good.
        """
        try:
            chunk = validated(signal, data)
        except PermanentError as error:
            self.invalid("malformed")
            raise MalformedError(str(error)) from None
        if not chunk.items:
            return
        try:
            self.consumers[signal].consume(chunk)
        except RetryableError:
            self._counters["refused", signal].add(chunk.items)
            raise
        except PermanentError:
            self._counters["failed", signal].add(chunk.items)
            raise
        except Exception as error:
            self._counters["failed", signal].add(chunk.items)
            _log.exception('receiver "%s": a bug behind it: %s', self.receiver, type(error).__name__)
            raise PipelineBugError(
                f"{type(error).__name__} while handling {chunk.items} {SIGNALS[signal].items}"
            ) from error
        self._counters["accepted", signal].add(chunk.items)

    def invalid(self, reason: str) -> None:
        """Count a request that could not be read."""
        self._telemetry.counter(
            "mlspan_receiver_invalid_requests",
            receiver=self.receiver,
            transport=self._transport,
            reason=reason,
        ).add(1)
