"""A server process is waited for, restarted at its address, explained when it fails, never left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from .ports import HOST, free_port
from .process import Server, ServerError, answers
from .queries import wait_until

REPOSITORY = Path(__file__).parents[2]


class Files(Server):
    """Python's own web server."""

    def __init__(self, port: int, program: Sequence[str] = ("-m", "http.server", f"--bind={HOST}")) -> None:
        super().__init__("files", {"http": port})
        self.program = program

    def command(self) -> Sequence[str]:
        """Return the command line."""
        return [sys.executable, *self.program, str(self.ports["http"])]

    def healthy(self) -> bool:
        """Tell whether it serves its folder."""
        return answers(f"http://{self.address('http')}/")


@pytest.fixture
def server() -> Iterator[Files]:
    """A web server that runs."""
    with Files(free_port()) as started:
        yield started


def test_restart_keeps_the_address(server: Files) -> None:
    """After stop() nobody listens; after start() another process does, at the same address."""
    before, address = server.pid, server.address("http")
    server.stop()
    assert server.pid is None
    assert not server.healthy()
    server.start()
    assert server.pid not in (None, before)
    assert server.address("http") == address
    assert server.healthy()


def test_a_crash_is_visible(server: Files) -> None:
    """kill() ends it without a goodbye, and start() works after it."""
    server.kill()
    assert server.pid is None
    assert server.start().healthy()


def test_a_taken_port_is_named(server: Files) -> None:
    """A second server on the same port is refused before it starts, with the port in the message."""
    with pytest.raises(ServerError, match=rf"port {server.ports['http']} \(http\) is in use"):
        Files(server.ports["http"]).__enter__()


def test_a_failed_start_shows_the_log() -> None:
    """A process that ends while starting is reported with its exit status and what it printed."""
    broken = Files(free_port(), ("-c", "import sys; sys.exit('no such setting: colour')"))
    with pytest.raises(ServerError, match=r"(?s)ended with 1.*no such setting: colour"):
        broken.start()
    broken.close()


def test_a_start_without_health_times_out() -> None:
    """A process that never answers is stopped, and reported with what it printed."""
    silent = Files(free_port(), ("-c", "import time; print('thinking', flush=True); time.sleep(60)"))
    with pytest.raises(ServerError, match=r"(?s)not healthy 1 s after.*thinking"):
        silent.start(timeout=1)
    assert silent.pid is None
    silent.close()


def test_close_removes_its_files(server: Files) -> None:
    """Nothing of a closed server stays on disk."""
    assert server.directory.is_dir()
    server.close()
    assert not server.directory.exists()


def test_it_dies_with_a_killed_parent(tmp_path: Path) -> None:
    """SIGKILL runs no exit handler of ours, and still neither the server nor its files stay behind."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import time\n"
        "from tests.servers.ports import free_port\n"
        "from tests.servers.test_process import Files\n"
        "server = Files(free_port()).start()\n"
        "print(server.pid, server.directory, flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        number, directory = parent.stdout.readline().decode().split()
        pid = int(number)
        assert _alive(pid)
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not _alive(pid), 10, f"the end of process {pid}")
    wait_until(lambda: not Path(directory).exists(), 10, f"the end of {directory}")


def test_waiting_in_vain_says_for_what() -> None:
    """The timeout's message has what was awaited and the last answer."""

    def never() -> bool:
        raise AssertionError("2 of 3 spans")

    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"in vain for the spans; the last answer was .*2 of 3 spans"):
        wait_until(never, 0.2, "the spans")
    assert time.monotonic() - began < 5


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
