"""State that survives, part 11: which file a connector's state is in.

What the settings name is used or is an error. Without a name the file lies in the folder that whoever runs the
processor names, `mlspan run` that of the user's state; where it cannot be written, as in a container without a home,
state stays in memory and the log says so. Two processors never share a file.
"""

import logging
import os
import re
from pathlib import Path

from mlspan_processor.errors import StartError
from mlspan_processor.settings import MlspanSettings
from mlspan_processor.store.database import Database, LockedError, StoreError
from mlspan_processor.store.keeper import Keeper

_log = logging.getLogger(__name__)


def user_state_dir() -> Path | None:
    """Where programs keep state for this user; None for a user without a home.

    Source: https://specifications.freedesktop.org/basedir-spec/latest/ (XDG_STATE_HOME).
    """
    home = os.environ.get("XDG_STATE_HOME", "")
    # A relative one is to be ignored, says the specification.
    if home.startswith("/"):
        return Path(home) / "mlspan"
    try:
        return Path("~/.local/state/mlspan").expanduser()
    except RuntimeError:
        _log.warning("this user has no home: state is in memory only, unless store.path names a file")
        return None


def state_file(settings: MlspanSettings, name: str, folder: Path | None) -> Path | None:
    """The file of the connector `name`; None for state in memory only.

    >>> str(state_file(MlspanSettings(), "mlspan/eu", Path("/var/lib/mlspan")))
    '/var/lib/mlspan/mlspan_eu.db'
    """
    path = settings.store.path
    if path is not None:
        return Path(path).expanduser() if path else None
    return None if folder is None else folder / (re.sub(r"[^A-Za-z0-9._-]+", "_", name) + ".db")


def open_keeper(settings: MlspanSettings, name: str, folder: Path | None) -> Keeper | None:
    """Open the file of the connector `name`; None for state in memory only.

    Raises:
        StartError: the file that the settings name cannot be used, or another processor uses it.
    """
    try:
        path = state_file(settings, name, folder)
        if path is None:
            return None
        return Keeper(Database(path, settings.store.sync == "full"), settings)
    except (StoreError, RuntimeError) as error:  # RuntimeError: "~" without a home
        key = f"connectors::{name}::store::path"
        if settings.store.path is not None or isinstance(error, LockedError):
            raise StartError(
                f'connector "{name}": {error}; name another file in {key}, or "" to keep state in memory'
            ) from None
        _log.warning('connector "%s": %s; state is in memory only, unless %s names a file', name, error, key)
        return None
