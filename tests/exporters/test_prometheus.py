"""The page that Prometheus scrapes: both formats, exemplars, the HTTP server."""

import gzip
import http.client
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Exemplar, Metric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from prometheus_client import parser as classic_parser
from prometheus_client.openmetrics import parser as openmetrics_parser
from pydantic import ValidationError

from mlspan_exporters import prometheus_server
from mlspan_exporters.exemplars import exemplar_text
from mlspan_exporters.openmetrics import CLASSIC_TYPE, OPENMETRICS_TYPE
from mlspan_exporters.prometheus import PrometheusExporter, PrometheusSettings
from mlspan_exporters.testing import chunk_of
from mlspan_processor.records import Chunk, ExportResult, PermanentError, Signal

from . import requests
from .conftest import Certificates
from .golden import assert_golden
from .requests import DELTA, attributes, counter, exemplar, gauge, histogram, histogram_point, metrics, point

OPENMETRICS_ACCEPT = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"


def parse_openmetrics(text: str) -> list[Any]:
    """Return the families of an OpenMetrics page; ValueError where it is none."""
    return list(openmetrics_parser.text_string_to_metric_families(text))  # type: ignore[no-untyped-call] # the library's


def parse_classic(text: str) -> list[Any]:
    """Return the families of a page in the classic format; ValueError where it is none."""
    return list(classic_parser.text_string_to_metric_families(text))


def exporter_with(*items: Metric, **settings: Any) -> PrometheusExporter:
    """Return an exporter that was given metrics and serves nothing."""
    exporter = PrometheusExporter(PrometheusSettings.model_validate(settings), "prometheus", lambda: 0.0)
    exporter.export(chunk_of(metrics(*items)), 1.0)
    return exporter


def page(exporter: PrometheusExporter, *, openmetrics: bool = True) -> str:
    """Return what a scrape shows."""
    return exporter.page(openmetrics=openmetrics).decode()


@contextmanager
def serving(**settings: Any) -> Iterator[PrometheusExporter]:
    """Give a started exporter with one of everything on a free port."""
    exporter = PrometheusExporter(
        PrometheusSettings.model_validate({"endpoint": "127.0.0.1:0"} | settings), "prometheus/test"
    )
    exporter.start()
    try:
        exporter.export(chunk_of(metrics()), 1.0)
        yield exporter
    finally:
        exporter.shutdown()


def get(
    exporter: PrometheusExporter, path: str = "/metrics", method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of a request."""
    connection = http.client.HTTPConnection(*exporter.address, timeout=5)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def test_openmetrics_golden_and_parser() -> None:
    """One of every type is written as it always was, and a parser nobody here wrote reads it."""
    text = page(exporter_with())
    assert_golden("openmetrics.txt", text.encode())
    families = {family.name: family for family in parse_openmetrics(text)}
    assert families["ml_prediction_count"].type == "counter"
    assert families["ml_drift_psi_ratio"].unit == "ratio"
    assert families["target"].type == "info"
    buckets = {
        sample.labels["le"]: (sample.value, sample.exemplar)
        for sample in families["ml_operation_duration_seconds"].samples
        if sample.name.endswith("_bucket")
    }
    assert [value for value, _ in buckets.values()] == [1, 3, 3, 4]
    pointing = buckets["0.1"][1]
    assert pointing.labels == {
        "trace_id": requests.TRACE_ID.hex(),
        "span_id": requests.SPAN_ID.hex(),
        "order": "A-1",
    }
    assert (pointing.value, float(pointing.timestamp)) == (0.07, 1_790_000_000.0)
    assert buckets["0.01"][1] is None
    assert buckets["+Inf"][1].value == 7.0


def test_classic_golden_and_parser() -> None:
    """The classic text has the same samples, without exemplars."""
    text = page(exporter_with(), openmetrics=False)
    assert_golden("classic.txt", text.encode())
    assert "# {" not in text
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse_classic(text)
        for sample in family.samples
    }
    for family in parse_openmetrics(page(exporter_with())):
        for sample in family.samples:
            found = samples[sample.name, tuple(sorted(sample.labels.items()))]
            assert found == sample.value or str(found) == "nan"


@pytest.mark.parametrize("openmetrics", [True, False])
def test_timestamps_are_shown_where_set(openmetrics: bool) -> None:
    """With `send_timestamps` each sample carries its point's time, to the millisecond."""
    text = page(exporter_with(send_timestamps=True), openmetrics=openmetrics)
    assert ("} 12 1790000001.234 # {" if openmetrics else "} 12 1790000001234\n") in text
    parser = parse_openmetrics if openmetrics else parse_classic
    times = {
        float(sample.timestamp) for family in parser(text) for sample in family.samples if sample.timestamp is not None
    }
    assert times == {1790000001.234}


def test_namespace_constant_labels_and_suffixes() -> None:
    """The settings for names and labels take effect, on target_info too."""
    text = page(exporter_with(namespace="my-app", const_labels={"site": "a"}, add_metric_suffixes=False))
    assert 'my_app_ml_drift_psi{ml_feature_name="amount",site="a"' in text
    assert "my_app_target_info{" in text
    parse_openmetrics(text)


def test_scope_and_target_can_be_left_out() -> None:
    """Without scope and target information only the job and the instance are added."""
    text = page(exporter_with(without_scope_info=True, without_target_info=True))
    assert "otel_scope" not in text
    assert "target_info" not in text
    assert 'queue_size{job="eu/shop",instance="shop-1"} -4\n' in text


def test_negative_histogram_has_no_sum_in_openmetrics() -> None:
    """Where observations may be negative the sum may fall, so OpenMetrics shows neither sum nor count."""
    negative = histogram(histogram_point([1, 0, 0, 2], explicit_bounds=[-1.0, 0.0, 1.0], sum=-3.0))
    text = page(exporter_with(negative))
    assert "_sum" not in text
    assert "_count" not in text
    parse_openmetrics(text)
    assert "ml_operation_duration_seconds_count{" in page(exporter_with(negative), openmetrics=False)


def test_empty_store_is_a_valid_page() -> None:
    """Before the first metric both formats are valid."""
    exporter = PrometheusExporter(PrometheusSettings(), "prometheus")
    assert page(exporter) == "# EOF\n"
    assert page(exporter, openmetrics=False) == ""


def test_series_without_labels_has_no_braces() -> None:
    """A metric of nobody in particular is a bare name."""
    request = metrics(gauge(point(0.5)), resource=Resource())
    exporter = PrometheusExporter(PrometheusSettings(without_scope_info=True), "prometheus")
    exporter.export(chunk_of(request), 1.0)
    assert "ml_drift_psi_ratio 0.5\n" in page(exporter)


def test_exemplar_labels_keep_to_the_limit() -> None:
    """Ids come first; of the other attributes only those are added that fit into 128 characters."""
    filtered = attributes({"a.long": "x" * 60, "fits": "y" * 20, "trace.id": "z"})
    text = exemplar_text(exemplar(1.0, filtered_attributes=filtered))
    assert text.startswith(f' # {{trace_id="{requests.TRACE_ID.hex()}",span_id="{requests.SPAN_ID.hex()}",fits="yyy')
    assert "a_long" not in text
    assert exemplar_text(Exemplar(as_double=1.0)) == ""
    bare = Exemplar(as_int=3, trace_id=requests.TRACE_ID)
    assert exemplar_text(bare) == f' # {{trace_id="{requests.TRACE_ID.hex()}"}} 3.0'


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (OPENMETRICS_ACCEPT, OPENMETRICS_TYPE),
        ("application/openmetrics-text", OPENMETRICS_TYPE),
        ("text/plain;q=0.9, application/openmetrics-text;q=0.1", CLASSIC_TYPE),
        ("application/openmetrics-text;q=0", CLASSIC_TYPE),
        ("application/openmetrics-text;q=x", CLASSIC_TYPE),
        ("text/html,*/*;q=0.8", CLASSIC_TYPE),
        ("", CLASSIC_TYPE),
    ],
)
def test_format_follows_accept(accept: str, content_type: str) -> None:
    """OpenMetrics is served to those who prefer it."""
    with serving() as exporter:
        status, headers, body = get(exporter, Accept=accept)
    assert (status, headers["Content-Type"]) == (200, content_type)
    assert body.endswith(b"# EOF\n") is (content_type == OPENMETRICS_TYPE)


def test_openmetrics_can_be_switched_off() -> None:
    """With `enable_open_metrics: false` everybody gets the classic text, and is told so."""
    with serving(enable_open_metrics=False) as exporter:
        _, headers, body = get(exporter, Accept=OPENMETRICS_ACCEPT)
    assert headers["Content-Type"] == CLASSIC_TYPE
    assert b"# EOF" not in body


def test_gzip_head_and_other_paths() -> None:
    """gzip where accepted, HEAD without body, 404 elsewhere, 501 for other methods."""
    with serving() as exporter:
        _, headers, packed = get(exporter, Accept=OPENMETRICS_ACCEPT, Accept_Encoding="gzip")
        assert headers["Content-Encoding"] == "gzip"
        _, _, plain = get(exporter, Accept=OPENMETRICS_ACCEPT)
        assert gzip.decompress(packed) == plain
        status, headers, body = get(exporter, "/metrics?name=x", "HEAD")
        assert (status, body) == (200, b"")
        assert int(headers["Content-Length"]) > 1000
        assert get(exporter, "/")[0] == 404
        assert get(exporter, "/metrics", "POST")[0] == 501


def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit a connection is closed at once, and there is room again when one ends."""
    monkeypatch.setattr(prometheus_server, "MAX_CONNECTIONS", 2)
    with serving() as exporter:
        held = [socket.create_connection(exporter.address) for _ in range(2)]
        for connection in held:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(10).startswith(b"HTTP/1.1")
        with socket.create_connection(exporter.address, timeout=5) as third:
            assert third.recv(10) == b""
        for connection in held:
            connection.close()
        for _ in range(100):
            try:
                assert get(exporter)[0] == 200
                break
            except (http.client.HTTPException, OSError):
                threading.Event().wait(0.02)
        else:
            pytest.fail("the places were not given free")


def test_tls(certificates: Certificates) -> None:
    """With a certificate the page is served over https; a client that speaks http disturbs nobody."""
    tls = {"cert_file": str(certificates.server_cert), "key_file": str(certificates.server_key)}
    with serving(tls=tls) as exporter:
        with socket.create_connection(exporter.address, timeout=5) as plain:
            plain.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            plain.recv(100)
        context = ssl.create_default_context(cafile=certificates.ca)
        connection = http.client.HTTPSConnection(*exporter.address, context=context, timeout=5)
        connection.request("GET", "/metrics")
        assert connection.getresponse().status == 200
        connection.close()


def test_port_in_use_is_named() -> None:
    """A port that is taken is an error that names the endpoint."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"127.0.0.1:{taken.getsockname()[1]}"
        exporter = PrometheusExporter(PrometheusSettings(endpoint=endpoint), "prometheus/eu")
        with pytest.raises(OSError, match=f'prometheus/eu: endpoint "{endpoint}" cannot be listened on: Address'):
            exporter.start()


@pytest.mark.parametrize(
    "endpoint", ["localhost", "http://127.0.0.1:9464", "127.0.0.1:x", "127.0.0.1:9464/metrics", ""]
)
def test_endpoint_that_cannot_be_is_refused(endpoint: str) -> None:
    """An endpoint without a port, or that is a URL, is an error that shows a right one."""
    with pytest.raises(ValidationError, match="write host:port"):
        PrometheusSettings(endpoint=endpoint)


def test_ipv6_and_all_addresses() -> None:
    """IPv6 addresses in brackets and ":port" are served."""
    for endpoint in ("[::1]:0", ":0"):
        exporter = PrometheusExporter(PrometheusSettings(endpoint=endpoint), "prometheus")
        try:
            exporter.start()
        except OSError:
            assert endpoint == "[::1]:0"  # a machine without IPv6
            continue
        assert get(exporter)[0] == 200
        exporter.shutdown()


def test_series_expire_without_a_scrape_in_between() -> None:
    """A scrape does not show what was not updated for `metric_expiration`."""
    now = [0.0]
    exporter = PrometheusExporter(
        PrometheusSettings.model_validate({"metric_expiration": "1m"}), "prometheus", lambda: now[0]
    )
    exporter.export(chunk_of(metrics()), 1.0)
    now[0] = 59.0
    assert "ml_drift_psi_ratio" in page(exporter)
    now[0] = 61.0
    assert page(exporter) == "# EOF\n"


def test_dropped_points_are_reported_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """What is dropped is a partial success with its reason; the log has one line per reason, not per point."""
    falling = Metric(name="level")
    falling.sum.aggregation_temporality = DELTA
    falling.sum.data_points.extend([point(1), point(2)])
    exporter = PrometheusExporter(PrometheusSettings(), "prometheus")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            result = exporter.export(chunk_of(metrics(falling)), 1.0)
    assert result == ExportResult(2, "2 data points: not cumulative, and no rising delta")
    assert len(caplog.records) == 1
    assert exporter.counters() == {"samples": 0, "dropped_temporality": 6}


def test_chunk_that_is_no_otlp_is_permanent() -> None:
    """Bytes that are no OTLP are refused for good."""
    with pytest.raises(PermanentError):
        PrometheusExporter(PrometheusSettings(), "prometheus").export(Chunk(Signal.METRICS, b"\xff", 1), 1.0)


def test_updates_and_scrapes_do_not_disturb_each_other() -> None:
    """Under updates from several threads every scrape is a whole page, and no count is lost."""
    exporter = PrometheusExporter(PrometheusSettings(), "prometheus")
    scraped: list[str] = []

    def send(worker: int) -> None:
        for number in range(50):
            one = counter(point(1, number + 1, labels={"worker": worker}), temporality=DELTA)
            exporter.export(chunk_of(metrics(one)), 1.0)

    threads = [threading.Thread(target=send, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        scraped.append(page(exporter))
    for thread in threads:
        thread.join()
    for text in [*scraped, page(exporter)]:
        families = {family.name: family for family in parse_openmetrics(text)}
    assert [sample.value for sample in families["ml_prediction_count"].samples] == [50.0] * 4
