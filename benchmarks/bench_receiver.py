"""Spans a CPU-second of the whole process: mlspan and the OpenTelemetry Collector on one stream, and parsing alone.

Both run as processes of their own, OTLP/gRPC in and OTLP/gRPC out to the same kind of sink; a client sends prepared
requests of 500 spans. CPU is the operating system's account of the process (user + system, all threads). Model
spans have one row of 30 features; mlspan turns them into metrics, keeps its state on disk (as it does by default) and
forwards them enriched, the Collector only forwards.
Run: ``python benchmarks/bench_receiver.py [--spans N]``. The Collector is built at the first run (tests/servers).
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import grpc
import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from rich.console import Console
from rich.table import Table

from benchmarks import streams
from tests.servers import free_port, otelcol

EXPORT: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
SPANS_A_REQUEST: Final = 500
COLLECTOR: Final = """\
receivers: {otlp: {protocols: {grpc: {endpoint: "${env:OTLP_GRPC}", max_recv_msg_size_mib: 64}}}}
exporters: {otlp_grpc: {endpoint: "${env:SINK}", tls: {insecure: true}, compression: none}}
service: {pipelines: {traces: {receivers: [otlp], exporters: [otlp_grpc]}}}
"""
MLSPAN: Final = """\
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "{grpc}"}}}}}}}}
connectors: {{mlspan: {{reference: {{learn_rows: 2000}}, store: {{path: "{state}"}}}}}}
exporters:
  otlp_grpc: {{endpoint: "{sink}", tls: {{insecure: true}}, compression: none}}
  prometheus: {{endpoint: "{metrics}"}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    traces/in: {{receivers: [otlp], exporters: [mlspan]}}
    traces: {{receivers: [mlspan], exporters: [otlp_grpc]}}
    metrics: {{receivers: [mlspan], exporters: [prometheus]}}
"""


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process, all threads, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def _sink() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("sink.py"))], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield f"127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def _mlspan(sink: str) -> Iterator[tuple[int, str]]:
    grpc_at, metrics = (f"127.0.0.1:{free_port()}" for _ in range(2))
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(MLSPAN.format(grpc=grpc_at, sink=sink, metrics=metrics, state=Path(folder) / "state.db"))
        command = [sys.executable, "-m", "mlspan_processor", "run", "--config", str(config)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            yield process.pid, grpc_at
        finally:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def _collector(sink: str) -> Iterator[tuple[int, str]]:
    with otelcol(COLLECTOR, {"SINK": sink}) as server:
        assert server.pid is not None
        yield server.pid, server.otlp_grpc


def _send(address: str, requests: list[bytes]) -> None:
    """Send all, four in flight, and wait for every answer; a refusal is sent again."""
    with grpc.insecure_channel(address, options=[("grpc.max_send_message_length", -1)]) as channel:
        grpc.channel_ready_future(channel).result(timeout=60)
        call = channel.unary_unary(EXPORT)
        waiting = []
        for request in requests:
            waiting.append((call.future(request, timeout=60, wait_for_ready=True), request))
            if len(waiting) >= 4:
                _settle(call, *waiting.pop(0))
        for future, request in waiting:
            _settle(call, future, request)


def _settle(call: grpc.UnaryUnaryMultiCallable, future: grpc.Future, request: bytes) -> None:
    while future.exception() is not None:
        if future.exception().code() is not grpc.StatusCode.UNAVAILABLE:
            raise future.exception()
        time.sleep(0.05)
        future = call.future(request, timeout=60)


def _spans_a_cpu_second(pid: int, address: str, warm: list[bytes], requests: list[bytes]) -> float:
    _send(address, warm)
    time.sleep(1)
    before, start = _cpu_seconds(pid), time.monotonic()
    _send(address, requests)
    # What is taken but not yet worked off belongs to the bill: wait until the process rests.
    used, rest = _cpu_seconds(pid) - before, 0.0
    while used - rest > 0.02 and time.monotonic() - start < 300:
        time.sleep(0.5)
        rest, used = used, _cpu_seconds(pid) - before
    return len(requests) * SPANS_A_REQUEST / used


def _parse_alone(requests: list[bytes]) -> float:
    start = time.process_time()
    for request in requests:
        ExportTraceServiceRequest.FromString(request)
    return len(requests) * SPANS_A_REQUEST / (time.process_time() - start)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--spans", type=int, default=200_000, help="spans of each kind in a round (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds, the median counts (default: %(default)s)")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    n = options.spans // SPANS_A_REQUEST
    table = Table(
        "stream",
        "parse alone",
        "Collector",
        "mlspan",
        "mlspan / Collector",
        "target",
        "met",
        title="spans a CPU-second",
    )
    with _sink() as sink, _collector(sink) as collector, _mlspan(sink) as ours:
        service = [streams.service_request(rng, SPANS_A_REQUEST) for _ in range(n)]
        warm = service[:20]
        rounds = [
            (
                _parse_alone(service),
                _spans_a_cpu_second(*collector, warm, service),
                _spans_a_cpu_second(*ours, warm, service),
            )
            for _ in range(options.rounds)
        ]
        parse, peer, mine = (float(np.median(column)) for column in zip(*rounds, strict=True))
        table.add_row(
            "service spans, forwarded",
            f"{parse:,.0f}",
            f"{peer:,.0f}",
            f"{mine:,.0f}",
            f"{mine / peer:.2f}",
            "≥ 1.00",
            "yes" if mine >= peer else "NO",
        )
        del service
        rounds = []
        warm = [streams.model_request(rng, SPANS_A_REQUEST, at_ns=time.time_ns()) for _ in range(20)]
        for _ in range(options.rounds):
            # Spans are fresh each round: one seen twice would not be counted.
            models = [streams.model_request(rng, SPANS_A_REQUEST, at_ns=time.time_ns()) for _ in range(n)]
            rounds.append(
                (
                    _parse_alone(models),
                    _spans_a_cpu_second(*collector, warm, models),
                    _spans_a_cpu_second(*ours, warm, models),
                )
            )
        parse, peer, mine = (float(np.median(column)) for column in zip(*rounds, strict=True))
        table.add_row(
            "model spans, 1 row x 30 features",
            f"{parse:,.0f}",
            f"{peer:,.0f} (forwards only)",
            f"{mine:,.0f}",
            f"{mine / peer:.2f}",
            "≥ 50,000",
            "yes" if mine >= 50_000 else "NO",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
