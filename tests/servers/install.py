"""What can be installed, from where, how long it takes, and installing it once.

`binary(name)` is all that a server needs: it returns the program's path and installs it first when it is not
there.
"""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import gobuild
from .cache import folder, locked, placed, say
from .tools import APT, APT_CACHE, DPKG, JAVA, MAVEN, InstallError, capture, require, run

ZIPKIN_VERSION = "3.6.1"


@dataclass(frozen=True)
class Package:
    """One installable server.

    `build` fills an empty folder so that `program` is in it. `takes` is the usual time on two cores with
    empty caches.
    """

    name: str
    version: str
    program: str
    how: str
    takes: str
    build: Callable[[Path], None]

    @property
    def place(self) -> Path:
        """The folder it lives in once installed."""
        return folder() / f"{self.name}-{self.version}"


def zipkin(work: Path) -> None:
    """Get Zipkin's executable jar through Maven."""
    require(JAVA, "run Zipkin, which is a Java program")
    mvn = require(MAVEN, "get Zipkin's jar")
    artifact = f"io.zipkin:zipkin-server:{ZIPKIN_VERSION}:jar:exec"
    command = [mvn, "-B", "-q", "dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={work}"]
    run(command, cwd=work, log=work / "build.log", what="zipkin")
    (work / f"zipkin-server-{ZIPKIN_VERSION}-exec.jar").rename(work / "zipkin.jar")


def prometheus(work: Path) -> None:
    """Get Debian's Prometheus: installed when we are root, else unpacked here (whole API, no web page)."""
    apt = require(APT, "get Debian's package of Prometheus")
    log = work / "build.log"
    if os.geteuid() == 0:
        _update_when_unknown(apt, work, log)
        env = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        install = [apt, "install", "--yes", "--no-install-recommends", "prometheus"]
        run(install, cwd=work, log=log, what="prometheus", env=env)
        _stop_service(work, log)
        found = shutil.which("prometheus")
        if found is None:
            raise InstallError("prometheus: its package was installed, but no `prometheus` is on PATH")
        (work / "prometheus").symlink_to(found)
        return
    unpack = require(DPKG, "unpack Debian's package of Prometheus")
    run([apt, "download", "prometheus"], cwd=work, log=log, what="prometheus")
    for package in work.glob("prometheus_*.deb"):
        run([unpack, "-x", str(package), "root"], cwd=work, log=log, what="prometheus")
        package.unlink()
    (work / "prometheus").symlink_to(Path("root") / "usr" / "bin" / "prometheus")


PACKAGES: dict[str, Package] = {
    package.name: package
    for package in (
        Package(
            "jaeger",
            gobuild.JAEGER_VERSION.removeprefix("v"),
            "jaeger",
            "built with go from its module",
            "5 minutes",
            gobuild.jaeger,
        ),
        Package("zipkin", ZIPKIN_VERSION, "zipkin.jar", "a jar through Maven", "10 seconds", zipkin),
        Package("prometheus", "debian", "prometheus", "Debian's package", "10 seconds", prometheus),
        Package(
            "otelcol",
            gobuild.collector_stamp(),
            "otelcol",
            "built with go by the OpenTelemetry builder",
            "2 minutes",
            gobuild.otelcol,
        ),
        Package(
            "telemetrygen",
            gobuild.TELEMETRYGEN_VERSION.removeprefix("v"),
            "telemetrygen",
            "built with go from its module",
            "30 seconds",
            gobuild.telemetrygen,
        ),
    )
}


def installed(name: str) -> Path | None:
    """Return the program of `name` when it is there, without installing anything."""
    package = _package(name)
    program = package.place / package.program
    if program.exists():
        return program
    if name == "prometheus" and (found := shutil.which("prometheus")):
        return Path(found)
    return None


def binary(name: str) -> Path:
    """Return the program of `name`, installed first when it is not there.

    Raises:
        ValueError: no such package.
        InstallError: a tool is missing or the build failed; the message says which, and what to do.
    """
    if (program := installed(name)) is not None:
        return program
    package = _package(name)
    with locked(name):
        if (program := installed(name)) is not None:
            return program
        say(f"{name} {package.version}: {package.how}; usually takes {package.takes}")
        began = time.monotonic()
        shutil.rmtree(package.place, ignore_errors=True)
        with placed(package.place) as work:
            package.build(work)
            if not (work / package.program).exists():
                raise InstallError(f"{name}: the build ended well but left no {package.program!r} in {work}")
        program = package.place / package.program
        say(f"{name} {package.version}: installed in {time.monotonic() - began:.0f} s, {_size(program)}, {program}")
        return program


def install(names: Sequence[str] = ()) -> None:
    """Install the packages called `names`, one after the other; all of them when none is named."""
    for name in names or PACKAGES:
        if (program := installed(name)) is not None:
            say(f"{name} {PACKAGES[name].version}: there already, {program}")
        else:
            binary(name)


def _package(name: str) -> Package:
    if name not in PACKAGES:
        raise ValueError(f"no server is called {name!r}; there are: {', '.join(PACKAGES)}")
    return PACKAGES[name]


def _size(program: Path) -> str:
    return f"{program.stat().st_size / 1e6:.0f} MB"


def _update_when_unknown(apt: str, work: Path, log: Path) -> None:
    """Fetch Debian's package lists on a machine that has none yet."""
    cache = require(APT_CACHE, "see whether Debian's package lists are there")
    known = capture([cache, "policy", "prometheus"], cwd=work, what="prometheus")
    if "Candidate:" not in known or "Candidate: (none)" in known:
        run([apt, "update"], cwd=work, log=log, what="prometheus (package lists)")


def _stop_service(work: Path, log: Path) -> None:
    """Stop the service that Debian's package starts, and keep it from starting again."""
    if (systemctl := shutil.which("systemctl")) and Path("/run/systemd/system").is_dir():
        run([systemctl, "disable", "--now", "prometheus"], cwd=work, log=log, what="prometheus (its service)")
