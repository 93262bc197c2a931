"""What the tests of batch analysis share."""

import pytest

from mlspan_processor.analysis import prepared
from mlspan_processor.estimate import Estimate
from mlspan_processor.sample import Sample


class NoEstimator:
    """Stands in for the estimator, whose fit takes seconds, where a test is about something else."""

    @classmethod
    def fit(cls, reference: Sample, *, seed: int = 0) -> "NoEstimator":
        """Learn nothing."""
        return cls()

    def estimate(self, window: Sample) -> dict[str, Estimate]:
        """Say nothing."""
        return {}


@pytest.fixture(autouse=True)
def without_estimates(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No estimator is fitted, unless the test asks for `estimates`."""
    if "estimates" not in request.fixturenames:
        monkeypatch.setattr(prepared, "Estimator", NoEstimator)


@pytest.fixture
def estimates() -> None:
    """The test needs the real estimator."""
