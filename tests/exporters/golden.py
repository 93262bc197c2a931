"""Golden files: what an exporter once wrote and shall write again.

`MLSPAN_UPDATE_GOLDEN=1 pytest tests/exporters` writes them anew; read the difference before you keep it.
"""

import os
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "golden" / "exporters"


def assert_golden(name: str, actual: bytes) -> None:
    """Compare with the golden file `name`, or write it where that is asked for."""
    path = FOLDER / name
    if os.environ.get("MLSPAN_UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(actual)
    assert actual.decode() == path.read_bytes().decode()
