"""Free ports on 127.0.0.1.

They are taken from below the range the kernel uses for outgoing connections (32768 and up on Linux). A
stopped server's port is then still there when it is started again, and a client that keeps dialling a dead
port of its own machine cannot end up connected to itself, which TCP allows when the port is also picked as
the source.
"""

import random
import socket

HOST = "127.0.0.1"
LOWEST, HIGHEST = 20_000, 32_000

_given: set[int] = set()


def is_free(port: int) -> bool:
    """Tell whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a port that is free and that this process has not handed out before."""
    for _ in range(1_000):
        port = random.SystemRandom().randrange(LOWEST, HIGHEST)
        if port not in _given and is_free(port):
            _given.add(port)
            return port
    raise OSError(f"no free port found on {HOST} between {LOWEST} and {HIGHEST}")


def free_ports(count: int) -> list[int]:
    """Return `count` different free ports."""
    return [free_port() for _ in range(count)]


def chosen(fixed: int) -> int:
    """Return `fixed`, or a free port when it is 0."""
    return fixed or free_port()
