"""Group fairness in the stream: gaps are published, and told where the whole band passes the threshold."""

from typing import Any

import numpy as np
import pytest

from mlspan_processor.labels import Label
from mlspan_processor.model_spans import prediction_id, put
from mlspan_processor.monitors.groups import fairness_findings, fairness_of_groups
from mlspan_processor.monitors.settings import Monitor
from mlspan_processor.monitors.window import Closed
from mlspan_processor.sample import Sample, Segment
from mlspan_processor.settings import MlspanSettings, Segments
from tests.processor.helpers import Rig, points_of
from tests.processor.test_judge import SETTINGS, Stream, events_of


class Regions(Stream):
    """Calls from two regions, of which one has the share of rows selected that is asked for."""

    def send(self, us: float = 0.5, **others: Any) -> None:  # type: ignore[override]
        """Five calls of fifty rows from each region, with labels."""
        given = []
        for region, share in (("eu", 0.5), ("us", us)):
            for _ in range(5):
                rows = self.random.normal(0, 1, (50, 4)).astype(np.float32)
                said = self.random.random(50) < share
                span = self.spans.add(rows, said.astype(int), end=self.rig.clock.now)
                given += [Label(prediction_id(span, i), "yes" if one else "no") for i, one in enumerate(said)]
            put(self.spans.request.resource_spans[0].resource, "cloud.region", region)
            self.rig.send(self.spans.chunk())
        self.rig.connector.submit_labels(given)


def test_a_gap_between_groups_opens_an_incident() -> None:
    """Equal rates are quiet; a ratio whose whole band is below four fifths is told, published and reported."""
    segments = {"resource": ["cloud.region"], "groups": ["cloud.region"]}
    with Rig(**SETTINGS, segments=segments) as rig:
        stream = Regions(rig)
        stream.pass_by(4)
        assert events_of(rig.logs.chunks) == []
        stream.pass_by(6, us=0.2)
        events = [event for _, event in events_of(rig.logs.chunks)]
        points = points_of(rig.metrics.chunks[-1:])
        [told] = rig.connector.incidents()["open"]
        fair = rig.connector.report("fraud")["judged"]["fairness"]["cloud.region"]
    assert "group fairness" in events[-1]["ml.monitor.names"]
    assert any("ratio of selection rates of cloud.region" in line for line in told["details"])
    ratio = fair["figures"]["demographic_parity_ratio"]
    assert ratio["groups"] == ["eu", "us"]
    assert ratio["high"] < 0.8
    [published] = [
        point.as_double
        for key, point in points.items()
        if key[0] == "ml.segment.fairness" and ("ml.quality.metric", "demographic_parity_ratio") in key
    ]
    assert published == pytest.approx(ratio["value"])


def sample(n: int, us: float) -> Sample:
    """Rows of two regions that are selected at .5 and at this rate."""
    codes = np.arange(2 * n) % 2
    said = np.where(codes == 1, np.arange(2 * n) // 2 % 10 < 10 * us, np.arange(2 * n) // 2 % 2 == 0).astype(float)
    segments = {"region": Segment(codes.astype(np.int32), ("eu", "us"))}
    nothing = np.zeros((0, 2 * n), np.uint32)
    return Sample("binary", (), (), nothing, ("no", "yes"), said, said, None, np.ones(2 * n), None, segments)


@pytest.mark.parametrize(
    ("n", "us", "told"), [(1000, 0.3, True), (1000, 0.5, False), (40, 0.3, False), (20, 0.1, None)]
)
def test_small_groups_raise_nothing(n: int, us: float, told: bool | None) -> None:
    """The band must be past the threshold; groups of fewer than thirty rows say nothing at all."""
    settings = Segments(resource=["region"], groups=["region"])
    found = fairness_of_groups(sample(n, us), settings)
    monitor = Monitor.model_validate({"name": "x", "metric": "demographic_parity_ratio", "threshold": {"below": 0.8}})
    with Rig() as rig:
        stream = Stream(rig)
        stream.send(labels=False)
        model = next(iter(rig.connector._state.models.values()))
        result = fairness_findings(monitor, model, found, Closed(None, 1, 2))
    if told is None:
        assert result == {}
        assert found[0].figures["demographic_parity_ratio"].reason.startswith("undecidable, because ")
    else:
        assert (result["demographic_parity_ratio region"] is not None) is told


def test_settings_that_do_not_fit() -> None:
    """A group attribute must be one of the segments; a class that the model lacks is a reason, not an error."""
    with pytest.raises(ValueError, match='"regio" is neither in features nor in resource; did you mean "region"'):
        MlspanSettings.model_validate({"segments": {"resource": ["region"], "groups": ["regio"]}})
    settings = Segments(resource=["region"], groups=["region"], favourable="granted")
    [found] = fairness_of_groups(sample(100, 0.5), settings)
    reasons = {one.reason for one in found.figures.values()}
    assert reasons == {'undecidable, because the model has no class "granted"'}
