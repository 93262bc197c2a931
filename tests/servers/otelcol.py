"""An OpenTelemetry Collector with the components in `gobuild.COMPONENTS`, and telemetrygen, a client of OTLP.

The configuration is the test's own text. Where it needs an address of this collector it says
`${env:OTLP_GRPC}`, `${env:OTLP_HTTP}` or `${env:HEALTH}`: each is `127.0.0.1:` and a free port, kept over
restarts. Anything else comes through `variables`, e.g. `otelcol(text, {"BACKEND": jaeger.otlp_grpc})` for
`${env:BACKEND}`. `${env:DATA}` is a folder of its own (for file_storage, the file exporter); it is emptied
only when the server is closed.
"""

import subprocess
from collections.abc import Mapping, Sequence

from .install import binary
from .ports import HOST, free_port
from .process import Server, ServerError, answers

READY = "Everything is ready. Begin running and processing data."
PORTS = ("otlp_grpc", "otlp_http", "health", "metrics")
TELEMETRY = """\
service:
  telemetry:
    metrics:
      level: normal
      readers:
        - pull:
            exporter:
              prometheus:
                host: {host}
                port: {port}
"""


class Collector(Server):
    """A running collector."""

    def __init__(self, config: str, variables: Mapping[str, str]) -> None:
        super().__init__("otelcol", {purpose: free_port() for purpose in PORTS})
        self.config = config
        self.variables = dict(variables)

    def command(self) -> Sequence[str]:
        """Write the configuration, with our port for its own metrics below it; return the command line."""
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        telemetry = self.directory / "telemetry.yaml"
        telemetry.write_text(TELEMETRY.format(host=HOST, port=self.ports["metrics"]))
        config = self.directory / "otelcol.yaml"
        config.write_text(self.config)
        return [str(binary("otelcol")), f"--config={telemetry}", f"--config={config}"]

    def environment(self) -> Mapping[str, str]:
        """Return the variables that the configuration may use."""
        ours = {purpose.upper(): self.address(purpose) for purpose in PORTS}
        return {**ours, "DATA": str(self.directory / "data"), **self.variables}

    def healthy(self) -> bool:
        """Tell whether every component is up: it says so in its log, and its metrics can be read."""
        return READY in self.output_since_start() and answers(self.metrics_url)

    @property
    def otlp_grpc(self) -> str:
        """Host and port of `${env:OTLP_GRPC}`."""
        return self.address("otlp_grpc")

    @property
    def otlp_http(self) -> str:
        """Base address of `${env:OTLP_HTTP}`; traces go to `/v1/traces` below it."""
        return f"http://{self.address('otlp_http')}"

    @property
    def metrics_url(self) -> str:
        """The collector's own metrics, e.g. `otelcol_receiver_accepted_spans`."""
        return f"http://{self.address('metrics')}/metrics"


def otelcol(config: str, variables: Mapping[str, str] | None = None) -> Collector:
    """Return a collector with this configuration, to be started by `with`; built first if missing."""
    binary("otelcol")
    return Collector(config, variables or {})


def telemetrygen(signal: str, endpoint: str, *arguments: str, http: bool = False, timeout: float = 120.0) -> str:
    """Send generated telemetry without TLS and return what telemetrygen printed.

    It sends as fast as it can; pass "--rate=N" for N per second (its own default is 1).

    Args:
        signal: "traces", "metrics" or "logs".
        endpoint: `host:port` of an OTLP receiver.
        arguments: further options, e.g. "--traces=5", "--service=shop", '--telemetry-attributes=key="value"'.
        http: by OTLP over HTTP instead of gRPC.
        timeout: seconds after which it is ended.

    Raises:
        ServerError: it failed or did not end in time.
    """
    command = [str(binary("telemetrygen")), signal, f"--otlp-endpoint={endpoint.removeprefix('http://')}"]
    command += ["--otlp-insecure", "--rate=0", *(["--otlp-http"] if http else []), *arguments]
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise ServerError(f"telemetrygen: still sending to {endpoint} after {timeout:.0f} s") from error
    if done.returncode:
        raise ServerError(f"telemetrygen: `{' '.join(command)}` ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout + done.stderr
