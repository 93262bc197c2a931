"""Zipkin: spans in by its API v2, kept in memory, read by the same API. It has no OTLP."""

from collections.abc import Mapping, Sequence

from .install import binary
from .ports import HOST, chosen
from .process import Server, answers
from .tools import JAVA, require


class Zipkin(Server):
    """A running Zipkin."""

    def command(self) -> Sequence[str]:
        """Return the command line: a small, quick-starting virtual machine that listens on 127.0.0.1 only."""
        java = require(JAVA, "run Zipkin, which is a Java program")
        machine = ["-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        port = [
            f"--armeria.ports[0].ip={HOST}",
            f"--armeria.ports[0].port={self.ports['http']}",
            "--armeria.ports[0].protocols[0]=http",
        ]
        return [java, *machine, f"-Djava.io.tmpdir={self.directory}", "-jar", str(binary("zipkin")), *port]

    def healthy(self) -> bool:
        """Tell whether the server and its storage are up."""
        return answers(f"{self.url}/health")

    def addresses(self) -> Mapping[str, str]:
        """Return what people are shown."""
        return {"spans in (API v2)": self.spans_url, "web page": f"{self.url}/zipkin/"}

    @property
    def url(self) -> str:
        """Base address, for the functions in `queries`."""
        return f"http://{self.address('http')}"

    @property
    def spans_url(self) -> str:
        """Where an exporter posts JSON or protobuf spans."""
        return f"{self.url}/api/v2/spans"


def zipkin(*, http: int = 0) -> Zipkin:
    """Return a Zipkin, to be started by `with`; 0 means a free port. Installed first if missing."""
    binary("zipkin")
    return Zipkin("zipkin", {"http": chosen(http)})
