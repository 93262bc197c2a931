"""Prometheus: scrapes what it is told to, keeps exemplars, answers PromQL.

It asks every target for OpenMetrics first (version 2.42 always does; exemplars exist in no other format), and
keeps exemplars because of the feature flag. Its data outlives a `restart()`.
"""

import json
from collections.abc import Mapping, Sequence

from .install import binary
from .ports import chosen
from .process import Server, answers


class Prometheus(Server):
    """A running Prometheus."""

    def __init__(self, scrape: Sequence[tuple[str, str]], scrape_interval: str, http: int) -> None:
        super().__init__("prometheus", {"http": http})
        self.scrape = tuple(scrape)
        self.scrape_interval = scrape_interval

    def command(self) -> Sequence[str]:
        """Write the configuration (JSON is YAML) and return the command line."""
        jobs = [{"job_name": job, "static_configs": [{"targets": [target]}]} for job, target in self.scrape]
        interval = {"scrape_interval": self.scrape_interval, "scrape_timeout": self.scrape_interval}
        config = self.directory / "prometheus.yml"
        config.write_text(json.dumps({"global": interval, "scrape_configs": jobs}, indent=2))
        return [
            str(binary("prometheus")),
            f"--config.file={config}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address={self.address('http')}",
            "--enable-feature=exemplar-storage",
        ]

    def healthy(self) -> bool:
        """Tell whether it is ready to scrape and to answer."""
        return answers(f"{self.url}/-/ready")

    def addresses(self) -> Mapping[str, str]:
        """Return what people are shown."""
        return {
            "web page": self.url,
            **{f"scrapes {job}": f"http://{target}/metrics" for job, target in self.scrape},
        }

    @property
    def url(self) -> str:
        """Base address, for the functions in `queries`."""
        return f"http://{self.address('http')}"


def prometheus(scrape: Sequence[tuple[str, str]] = (), scrape_interval: str = "1s", *, http: int = 0) -> Prometheus:
    """Return a Prometheus, to be started by `with`; 0 means a free port. Installed first if missing.

    Args:
        scrape: job name and `host:port` of each target; its `/metrics` is read.
        scrape_interval: how often, e.g. "1s"; also the time a target has to answer.
        http: the port it listens on.
    """
    binary("prometheus")
    return Prometheus(scrape, scrape_interval, chosen(http))
