"""Where installed servers live: one folder per name and version, put there whole or not at all.

The folder is `.cache/servers/` at the repository root, or `MLSPAN_SERVERS_CACHE`. It ignores itself in git. A
package is built in a hidden folder beside its place and renamed at the end, under a lock, so that an
interrupted install leaves nothing behind that looks installed, and two test runs at once install it once.
"""

import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "MLSPAN_SERVERS_CACHE"
REPOSITORY = Path(__file__).resolve().parents[2]


def folder() -> Path:
    """Return the cache folder, made when it is not there."""
    named = os.environ.get(VARIABLE)
    path = Path(named).expanduser().resolve() if named else REPOSITORY / ".cache" / "servers"
    path.mkdir(parents=True, exist_ok=True)
    ignore = path / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    return path


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock called `name`; the operating system lets go of it when this process dies."""
    with (folder() / f".{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{name}: another run is installing it, waiting for that")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def placed(target: Path) -> Iterator[Path]:
    """Give an empty folder to build in; when the block succeeds it becomes `target` by one rename.

    Call it with the package's lock held: what an interrupted run left is removed first. A failed build is
    left in place until the next try, so that its log can be read.
    """
    work = target.with_name(f".building-{target.name}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    yield work
    work.replace(target)


def say(line: str) -> None:
    """Print one progress line to standard error, at once."""
    print(line, file=sys.stderr, flush=True)
