"""What people and tail sampling read on enriched spans."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mlspan.profile import build_profile
from mlspan_processor import enrich
from mlspan_processor.cells import Reference
from mlspan_processor.model_spans import ModelSpans
from tests.processor.helpers import Rig, calls, normal_rows, values_of
from tests.processor.test_decode import read


def summary_of(attribute: bytes) -> str:
    """The text of a summary attribute."""
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

    pair = KeyValue.FromString(attribute)
    assert pair.key == "ml.input.summary"
    return pair.value.string_value


def test_summary_shows_numbers_categories_and_missing_values() -> None:
    """Numbers as their shortest decimals, categories readable or as their code, missing as null."""
    names = ("dep_hour", "distance", "carrier", "origin", "gone")
    types = ("numeric", "numeric", "categorical", "categorical", "numeric")
    spans = ModelSpans(columns=names, types=types)
    cells = np.zeros((2, 5), "<u4")
    cells[:, 0] = np.array([17, 0.1], "<f4").view("<u4")
    cells[:, 1] = np.array([1089, -2.5e-7], "<f4").view("<u4")
    cells[:, 2] = [5, 6]
    cells[:, 3] = [0xABC, 0]
    cells[:, 4] = np.array([np.nan, 3], "<f4").view("<u4")
    spans.add(cells[:1], [1])
    spans.add(cells[1:], [1])
    _, (block,), _, _ = read(spans.chunk())
    profile = build_profile(cells, names, types, labels={"carrier": {5: "UA"}})
    texts = [summary_of(one) for one in enrich.summaries(block, Reference(profile), None)]
    assert texts[0] == "dep_hour=17 distance=1089 carrier=UA origin=#00000abc gone=null"
    assert texts[1].startswith("dep_hour=0.1 distance=-2.5e-7 carrier=#00000006 origin=null gone=3")


def test_summary_of_many_features_shows_the_most_unusual() -> None:
    """Beyond sixteen columns the eight that cost most, the most unusual first."""
    names = tuple(f"x{j}" for j in range(40))
    rows = normal_rows(3000, 0, 40)
    reference = Reference(build_profile(rows, names, ["numeric"] * 40))
    spans = ModelSpans(columns=names, types=["numeric"] * 40)
    row = np.zeros((1, 40), "<f4")
    row[0, 33], row[0, 7] = 50, 2.2
    spans.add(row, [1])
    _, (block,), _, _ = read(spans.chunk())
    costs = reference.costs[reference.cells(block, slice(0, 1))]
    text = summary_of(enrich.summaries(block, reference, costs)[0])
    assert text.startswith("x33=50 x7=2.2 ")
    assert text.count("=") == enrich.MOST_UNUSUAL


def test_summary_is_cut_between_features() -> None:
    """At most 512 bytes, whole features only."""
    names = tuple(f"a_rather_long_feature_name_{'é' * 10}_{j}" for j in range(16))
    spans = ModelSpans(columns=names, types=["numeric"] * 16)
    spans.add(normal_rows(1, 0, 16), [1])
    _, (block,), _, _ = read(spans.chunk())
    text = summary_of(enrich.summaries(block, None, None)[0])
    assert 400 < len(text.encode()) <= 512
    assert all("=" in part for part in text.split(" "))


@pytest.mark.parametrize("length", [0, 1, 100, 125, 126, 127, 128, 511, 512])
def test_attribute_headers(length: int) -> None:
    """A summary of any length is a valid KeyValue."""
    assert summary_of(enrich._HEADERS[length] + b"x" * length) == "x" * length


def test_spans_get_summary_and_score_in_the_payloads_place() -> None:
    """Before the reference is there: summary only; then score and flag; the payload is off, the rest untouched."""
    with Rig(reference={"learn_rows": 500}) as rig:
        spans = ModelSpans()
        for span in rig.send(calls(spans, normal_rows(400, 0))):
            assert set(values_of(span)) == {
                "ml.operation.name",
                "ml.model.name",
                "ml.model.version",
                "ml.input.rows",
                "ml.input.summary",
            }
        rig.send(calls(spans, normal_rows(200, 1)))
        span, *_ = rig.send(calls(spans, normal_rows(1, 2)))
        values = values_of(span)
        assert values["ml.anomaly.flag"] is False
        assert 0 <= values["ml.anomaly.score"] < 0.999
        assert values["ml.input.summary"].startswith("a=")
        assert "ml.payload" not in values
        assert span.name == "predict fraud"


def test_keep_payload_and_no_summary() -> None:
    """Both settings do what they say, wherever the payload stands."""
    for options, kept in (({"keep_payload": True}, True), ({"summary": False}, False)):
        with Rig(**options) as rig:
            spans = ModelSpans()
            spans.add(normal_rows(1, 0), [1])
            spans.add(normal_rows(1, 0), [1], after_payload="team")
            for span in rig.send(spans.chunk()):
                assert ("ml.payload" in values_of(span)) == kept
                assert ("ml.input.summary" in values_of(span)) == kept


def test_flagged_calls_name_their_features() -> None:
    """An outlying row is flagged with the features that make it so, and counted once with its trace as exemplar."""
    columns = tuple(f"x{j}" for j in range(10))
    with Rig(reference={"learn_rows": 2000}) as rig:
        spans = ModelSpans(columns=columns, types=["numeric"] * 10)
        rig.send(calls(spans, normal_rows(2000, 0, 10)))
        row = normal_rows(1, 1, 10)
        row[0, [2, 5, 7, 8]] = 99
        (span,) = rig.send(calls(spans, row))
        values = values_of(span)
        assert values["ml.anomaly.flag"] is True
        assert values["ml.anomaly.score"] >= 0.999
        assert set(values["ml.anomaly.features"]) < {"x2", "x5", "x7", "x8"}
        assert len(values["ml.anomaly.features"]) == 3
        point = rig.flush()["ml.anomaly.count", ("ml.model.name", "fraud"), ("ml.model.version", "7")]
        assert point.as_int == 1
        assert point.exemplars[0].span_id == span.span_id


DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, int], Any]] = {
    "normal": lambda rng, n: rng.normal(size=(n, 20)),
    "lognormal": lambda rng, n: rng.lognormal(size=(n, 20)),
    "student t, 3 degrees": lambda rng, n: rng.standard_t(3, size=(n, 20)),
    "integers": lambda rng, n: rng.poisson(4, size=(n, 20)),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("rows_per_call", [1, 10])
def test_false_flags_are_about_one_in_a_thousand(rows_per_call: int, name: str) -> None:
    """Calls with rows from the reference's own distribution are flagged at about 0.1 %, whatever size and tails."""
    rng = np.random.default_rng(0)
    draw = DISTRIBUTIONS[name]
    columns, types = [f"x{j}" for j in range(20)], ["numeric"] * 20
    flagged = total = 0
    for _ in range(10):
        profile = build_profile(draw(rng, 5000).astype("f4"), columns, types)
        reference = Reference(profile)
        assert profile.anomaly is not None
        spans = ModelSpans(columns=columns, types=types)
        spans.add(draw(rng, 20_000).astype("f4"))
        _, (block,), _, _ = read(spans.chunk())
        costs = reference.costs[reference.cells(block, slice(0, 20_000))]
        reference.add_distances(costs, list(range(20)), np.arange(20), block.columns.view(np.float32))
        scores = enrich.anomaly_scores(profile.anomaly, costs.sum(axis=0), np.arange(0, 20_000, rows_per_call))
        flagged += int((scores >= 0.999).sum())
        total += len(scores)
    assert 0.0001 < flagged / total < 0.002


@pytest.mark.parametrize("value", [30.0, -30.0, 1e30, np.inf, -np.inf])
def test_one_value_far_outside_its_range_is_enough(value: float) -> None:
    """A single value far beyond anything in the reference flags its call, and is named first."""
    columns = tuple(f"x{j}" for j in range(10))
    with Rig(reference={"learn_rows": 2000}) as rig:
        spans = ModelSpans(columns=columns, types=["numeric"] * 10)
        rig.send(calls(spans, normal_rows(2000, 0, 10)))
        row = np.zeros((1, 10), np.float32)
        row[0, 4] = value
        (span,) = rig.send(calls(spans, row))
        assert values_of(span)["ml.anomaly.flag"] is True
        assert values_of(span)["ml.anomaly.features"][0] == "x4"
