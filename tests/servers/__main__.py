"""`python -m tests.servers`: install the servers, run some in the foreground, or prove that each works."""

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from types import FrameType

from .cache import VARIABLE, folder, say
from .check import CHECKS
from .install import PACKAGES, install, installed
from .jaeger import jaeger
from .process import Server, ServerError
from .prometheus import prometheus
from .tools import InstallError
from .zipkin import zipkin

MLSPAN_METRICS = "127.0.0.1:9464"
EXAMPLES = f"""\
examples:
  python -m tests.servers install                 all of them, about 8 minutes with empty caches
  python -m tests.servers install zipkin          only what you need
  python -m tests.servers start jaeger zipkin     on free ports, until Ctrl-C
  python -m tests.servers start --fixed-ports     all three where people look for them:
                                                  Jaeger 16686 (OTLP 14317, 14318), Zipkin 9411,
                                                  Prometheus 9090
  python -m tests.servers check jaeger            start it, send it something, read it back

Prometheus scrapes mlspan's own metrics at {MLSPAN_METRICS}. All is installed to .cache/servers/, or to
the folder in the variable {VARIABLE}.
"""

STARTERS: dict[str, tuple[Callable[[], Server], Callable[[], Server]]] = {
    "jaeger": (jaeger, lambda: jaeger(otlp_grpc=14317, otlp_http=14318, query=16686)),
    "zipkin": (zipkin, lambda: zipkin(http=9411)),
    "prometheus": (
        lambda: prometheus([("mlspan", MLSPAN_METRICS)]),
        lambda: prometheus([("mlspan", MLSPAN_METRICS)], http=9090),
    ),
}
"""For each server that runs without a configuration of one's own: on free ports, and on fixed ones."""


class Stopped(Exception):
    """SIGTERM arrived."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        match options.command:
            case "install":
                install(options.names)
            case "start":
                _start(options.names or list(STARTERS), fixed=options.fixed_ports)
            case "check":
                _check(options.names or list(CHECKS))
            case "list":
                _list()
    except (InstallError, ServerError) as error:
        say(f"error: {error}")
        return 1
    except (KeyboardInterrupt, Stopped):
        say("stopped")
        return 130 if options.command != "start" else 0
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.servers",
        description="Install and run the real servers that mlspan is tested with.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    one = commands.add_parser("install", help="install servers that are not there yet")
    one.add_argument("names", nargs="*", metavar="NAME", type=_one_of(PACKAGES), help=", ".join(PACKAGES))
    one = commands.add_parser("start", help="run servers in the foreground until Ctrl-C or SIGTERM")
    one.add_argument("names", nargs="*", metavar="NAME", type=_one_of(STARTERS), help=", ".join(STARTERS))
    one.add_argument("--fixed-ports", action="store_true", help="the usual ports instead of free ones")
    one = commands.add_parser("check", help="start each server, send it something and read it back")
    one.add_argument("names", nargs="*", metavar="NAME", type=_one_of(CHECKS), help=", ".join(CHECKS))
    commands.add_parser("list", help="what can be installed, and what is")
    return parser


def _one_of(known: Iterable[str]) -> Callable[[str], str]:
    """Return an argument type that takes the `known` names; `choices` refuses the empty list."""

    def name(given: str) -> str:
        if given not in known:
            raise argparse.ArgumentTypeError(f"{given!r} is not one of {', '.join(known)}")
        return given

    return name


def _start(names: Sequence[str], *, fixed: bool) -> None:
    install(names)
    with ExitStack() as stack:
        servers = []
        for name in dict.fromkeys(names):
            say(f"{name}: starting")
            servers.append(stack.enter_context(STARTERS[name][fixed]()))
        rows = [(server.name, what, where) for server in servers for what, where in server.addresses().items()]
        print(_table([("server", "what", "address"), *rows]), flush=True)
        say("running; Ctrl-C stops all")
        while True:
            time.sleep(0.5)
            for server in servers:
                if server.pid is None:
                    raise ServerError(f"{server.name} ended by itself; its log ends:\n{server.log()[-3000:]}")


def _check(names: Sequence[str]) -> None:
    for name in dict.fromkeys(names):
        began = time.monotonic()
        found = CHECKS[name]()
        print(f"{name}: {found} ({time.monotonic() - began:.1f} s)", flush=True)


def _list() -> None:
    rows = [(p.name, p.version, p.how, p.takes, str(installed(p.name) or "-")) for p in PACKAGES.values()]
    print(_table([("name", "version", "how", "takes", "installed"), *rows]))
    print(f"\ncache: {folder()}")


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    raise Stopped


if __name__ == "__main__":
    sys.exit(main())
