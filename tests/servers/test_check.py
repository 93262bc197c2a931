"""Each real server takes what it is sent and gives it back."""

import pytest

from .check import CHECKS


@pytest.mark.integration
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", CHECKS)
def test_server_works(name: str) -> None:
    """The server is installed, starts, answers with what it was sent, and stops."""
    assert CHECKS[name]()
