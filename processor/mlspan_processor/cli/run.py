"""``mlspan run``: start, wait for a signal, stop."""

import argparse
import gc
import logging
import os
import signal
import sys
import threading
from types import FrameType

from mlspan_processor.cli.console import fail
from mlspan_processor.config import load
from mlspan_processor.errors import StartError
from mlspan_processor.logs import PERIOD_SECONDS, RateLimit, setup
from mlspan_processor.pipeline import Engine
from mlspan_processor.store.opening import user_state_dir

_log = logging.getLogger(__name__)


def run(options: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT; a second signal ends the process at once."""
    try:
        configuration = load(options.config, options.settings)
    except StartError as error:
        return fail(str(error))
    logs = configuration.service.telemetry.logs
    handler = setup(logs.level, logs.encoding)
    limits = [one for one in handler.filters if isinstance(one, RateLimit)]
    for warning in configuration.warnings:
        _log.warning("%s", warning)
    stop = threading.Event()

    def on_signal(number: int, _: FrameType | None) -> None:
        if stop.is_set():
            os.write(2, b"mlspan: second signal, not waiting any longer\n")
            os._exit(1)
        stop.set()
        os.write(2, f"mlspan: {signal.Signals(number).name}, stopping\n".encode())

    # Before anything listens: a signal during the start stops as soon as it is over.
    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    try:
        engine = Engine(configuration, state_dir=user_state_dir())
        engine.start()
    except StartError as error:
        return fail(str(error))
    # What lives now lives to the end: the collector of cycles need not look at it again, nor after every 700 spans.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    for line in engine.endpoints():
        sys.stdout.write(line + "\n")
    sys.stdout.flush()
    _log.info("everything is ready")
    while not stop.wait(PERIOD_SECONDS):
        for limit in limits:
            limit.tell(handler, only_past=True)
    unsent_before = _messages(engine, "notifications_failed", "notifications_dropped")
    lost = engine.shutdown()
    unsent = _messages(engine, "notifications_failed", "notifications_dropped") - unsent_before
    kept = _messages(engine, "notifications_waiting")
    for limit in limits:
        limit.tell(handler)
    _log.log(logging.ERROR if lost or unsent else logging.INFO, "stopped; %s", last_words(lost, unsent, kept))
    return 0


def last_words(lost: int, unsent: int, kept: int) -> str:
    """What has become of everything: items and messages that were lost, messages that the store keeps."""
    losses = [f"{count} {what} were not sent" for count, what in ((lost, "items"), (unsent, "messages")) if count]
    said = losses or ["nothing was lost while stopping"]
    return "; ".join([*said, *([f"{kept} messages are kept and sent after the next start"] if kept else [])])


def _messages(engine: Engine, *names: str) -> int:
    """Messages about incidents, of all connectors, by what became of them."""
    counters = [connector.counters() for connector in engine.parts.connectors.values()]
    return int(sum(counts.get(name, 0) for counts in counters for name in names))
