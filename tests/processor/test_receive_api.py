"""Beside OTLP on the HTTP port: labels in, the report out."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3

from mlspan_processor.receive.label_lines import read_labels
from mlspan_processor.records import RetryableError
from tests.processor.running import Running, running
from tests.processor.test_receive_http import JSON, post, status_of


@pytest.fixture(scope="module")
def processor() -> Iterator[Running]:
    """One processor for the tests that leave it as it was."""
    with running() as one:
        yield one


@pytest.fixture(scope="module")
def pool() -> Iterator[urllib3.PoolManager]:
    """An HTTP client without retries."""
    with urllib3.PoolManager(retries=False, timeout=20) as one:
        yield one


def call(pool: urllib3.PoolManager, url: str, body: bytes, content_type: str) -> Any:
    """POST and return the JSON answer."""
    response = post(pool, url, body, content_type)
    assert response.status == 200, response.data
    return json.loads(response.data)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/x-ndjson", b'{"prediction_id":"a","label":"fraud"}\n\n{"prediction_id":"b","label":"ok"}\n'),
        (JSON, b'[{"prediction_id":"a","label":"fraud"},{"prediction_id":"b","label":"ok"}]'),
        ("text/csv; charset=utf-8", b"prediction_id,label\r\na,fraud\r\nb,ok\r\n"),
    ],
)
def test_labels_in_three_formats(pool: urllib3.PoolManager, content_type: str, body: bytes) -> None:
    """JSON lines, a JSON array and CSV give the same labels."""
    with running() as one:
        answer = call(pool, f"{one.http}/v1/labels", body, content_type)
        assert answer == {
            "accepted": 2,
            "waiting": 0,
            "not_captured": 0,
            "durable": False,
            "rejected_count": 0,
            "rejected": [],
        }
        assert [(label.prediction_id, label.label) for label in one.connector.labels] == [("a", "fraud"), ("b", "ok")]
        assert one.telemetry.value("mlspan_receiver_labels", state="accepted") == 2


def test_labels_of_several_outputs(pool: urllib3.PoolManager) -> None:
    """Names of the outputs that hold, 0 or 1 for each, or by name; in CSV the text as it is."""
    lines = [
        b'{"prediction_id":"a","label":["spam","rude"]}',
        b'{"prediction_id":"b","label":[]}',
        b'{"prediction_id":"c","label":[1,0.0,true]}',
        b'{"prediction_id":"d","label":{"spam":1,"rude":0}}',
        b'{"prediction_id":"e","label":[0.5,1]}',
        b'{"prediction_id":"f","label":[1,"spam"]}',
        b'{"prediction_id":"g","label":{"spam":null}}',
        b'{"prediction_id":"h","label":[1]}',
    ]
    with running() as one:
        answer = call(pool, f"{one.http}/v1/labels", b"\n".join(lines), "application/jsonl")
        assert [label.label for label in one.connector.labels] == [
            ("spam", "rude"),
            (),
            (True, False, True),
            ("spam",),
        ]
        assert [bad["line"] for bad in answer["rejected"]] == [5, 6, 7, 8]
        assert answer["rejected"][0]["reason"] == 'label holds "0.5"; of several outputs it must hold 0 and 1, or names'
        assert "list of one number" in answer["rejected"][3]["reason"]
        call(pool, f"{one.http}/v1/labels", b"prediction_id,label\na,spam;rude\nb,;\n", "text/csv")
        assert [label.label for label in one.connector.labels[-2:]] == ["spam;rude", ";"]


def test_a_bad_label_costs_only_itself(pool: urllib3.PoolManager) -> None:
    """Bad lines are listed with their numbers and reasons, those the connector rejects among them."""
    body = b'{"prediction_id":"a","label":1}\nnot json\n{"label":"x"}\n{"prediction_id":"unknown","label":"x"}\n'
    with running() as one:
        answer = call(pool, f"{one.http}/v1/labels", body, "application/jsonl")
        assert answer["accepted"] == 1
        assert [row["line"] for row in answer["rejected"]] == [2, 3, 4]
        assert answer["rejected"][1]["reason"] == "prediction_id is missing"
        assert answer["rejected"][2]["reason"] == "no such prediction"
        assert [label.label for label in one.connector.labels] == [1.0, "x"]


def test_a_csv_row_with_too_many_fields_costs_only_itself(pool: urllib3.PoolManager) -> None:
    """A stray comma, or a column that the first line does not name, is a bad line."""
    with running() as one:
        answer = call(pool, f"{one.http}/v1/labels", b"prediction_id,label\na,1,5\nb,2\n", "text/csv")
        assert answer["accepted"] == 1
        assert answer["rejected"] == [{"line": 2, "reason": "more fields than the 2 columns of the first line"}]


def test_one_object_may_stand_on_several_lines(pool: urllib3.PoolManager) -> None:
    """A single label as a person or a pretty printer writes it."""
    with running() as one:
        body = b'{\n  "prediction_id": "a",\n  "label": "fraud"\n}\n'
        assert call(pool, f"{one.http}/v1/labels", body, JSON)["accepted"] == 1


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        ("1700000000", 1_700_000_000_000_000_000),
        ("1700000000.5", 1_700_000_000_500_000_000),
        ("1700000000000000001", 1_700_000_000_000_000_001),
        ('"1700000000000000001"', 1_700_000_000_000_000_001),
        ('"1.7e9"', 1_700_000_000_000_000_000),
        ('"2023-11-14T22:13:20Z"', 1_700_000_000_000_000_000),
        ('"2023-11-14"', 1_699_920_000_000_000_000),
        ("1700000000000", "before 1970 or after 2262"),  # milliseconds
        ("1e300", "before 1970 or after 2262"),
        ('"1e999999999"', "before 1970 or after 2262"),
        ("-5", "before 1970 or after 2262"),
        ('"1969-12-31"', "before 1970 or after 2262"),
        ("true", "neither RFC 3339 nor Unix seconds"),
        ('"nan"', "neither RFC 3339 nor Unix seconds"),
        ('"noon"', "neither RFC 3339 nor Unix seconds"),
        ("[1]", "neither RFC 3339 nor Unix seconds"),
    ],
)
def test_timestamps_of_labels(timestamp: str, expected: int | str) -> None:
    """Seconds, nanoseconds and RFC 3339 are exact; what is no time of this era is a bad line."""
    good, bad = read_labels(f'{{"prediction_id": "a", "label": 1, "timestamp": {timestamp}}}'.encode(), JSON)
    if isinstance(expected, int):
        assert [line.timestamp_ns for line in good] == [expected]
    else:
        assert expected in bad[0].reason


def test_an_id_of_another_type_is_named() -> None:
    """An id that is there, but is no text, is not called missing."""
    _, bad = read_labels(b'{"prediction_id": 5.5, "label": 1}', JSON)
    assert bad[0].reason == 'prediction_id "5.5" is neither text nor a whole number'


def test_labels_without_columns_are_400(processor: Running, pool: urllib3.PoolManager) -> None:
    """CSV without the two columns says which are missing."""
    response = post(pool, f"{processor.http}/v1/labels", b"id,truth\n1,2\n", "text/csv")
    assert response.status == 400
    assert '"prediction_id", "label"' in status_of(response).message


def test_models(processor: Running, pool: urllib3.PoolManager) -> None:
    """The connector's status is served."""
    response = pool.request("GET", f"{processor.http}/v1/models")
    assert response.json() == {"models": [{"name": "fraud-model", "version": "7"}]}


def test_model_report(processor: Running, pool: urllib3.PoolManager) -> None:
    """Version, start and end reach the connector; times are RFC 3339 or Unix seconds."""
    url = f"{processor.http}/v1/models/fraud-model?version=7&start=2023-11-14T22:13:20%2B00:00&end=1700000001.5"
    assert pool.request("GET", url).json() == {
        "model": "fraud-model",
        "version": "7",
        "start_ns": 1_700_000_000_000_000_000,
        "end_ns": 1_700_000_001_500_000_000,
    }


@pytest.mark.parametrize(
    ("path", "expected"),
    [("other-model", 404), ("fraud-model?start=noon", 400), ("fraud-model?from=1", 400)]
    + [(f"fraud-model?start={start}&end=1700000000", 400) for start in ("1700000000", "1700000001")]
    + [
        (f"fraud-model?start={start}", 400) for start in ("nan", "inf", "1e300", "-1", "9" * 25, "0001-01-01T00:00:00Z")
    ],
)
def test_bad_report_requests(processor: Running, pool: urllib3.PoolManager, path: str, expected: int) -> None:
    """An unknown model is 404, a bad parameter 400."""
    response = pool.request("GET", f"{processor.http}/v1/models/{path}")
    assert response.status == expected
    status_of(response)


@pytest.mark.parametrize(("path", "method"), [("models", "status"), ("models/m", "report"), ("incidents", "incidents")])
def test_a_busy_connector_is_503(
    pool: urllib3.PoolManager, monkeypatch: pytest.MonkeyPatch, path: str, method: str
) -> None:
    """Whoever asks while the state thread is busy is told to come again, and it is no bug."""

    def busy(*_: object) -> None:
        raise RetryableError("busy", 1.0)

    with running() as one:
        monkeypatch.setattr(one.connector, method, busy)
        response = pool.request("GET", f"{one.http}/v1/{path}")
        assert (response.status, response.headers["Retry-After"]) == (503, "1")


def test_a_csv_field_without_end_is_400(processor: Running, pool: urllib3.PoolManager) -> None:
    """A first line that is no CSV is the sender's mistake."""
    response = post(pool, f"{processor.http}/v1/labels", b"x" * 200_000 + b",label\n", "text/csv")
    assert response.status == 400
    assert "not CSV, line 1" in status_of(response).message


@pytest.mark.parametrize("name", ["", "..", "fraud-model"])
def test_a_report_by_query(pool: urllib3.PoolManager, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """`?name=` says which model where a path cannot; an unknown one is 404 there, too."""
    with running() as one:
        url = f"{one.http}/v1/models?name={name}"
        assert pool.request("GET", url).status == (200 if name == "fraud-model" else 404)
        monkeypatch.setattr(one.connector, "report", lambda *asked: asked)
        assert pool.request("GET", f"{url}&version=7").json() == [name, "7", None, None]
        assert pool.request("GET", f"{url}&from=1").status == 400
