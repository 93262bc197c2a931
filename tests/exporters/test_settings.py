"""Settings that the exporters share: durations, headers, TLS blocks."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from mlspan_exporters.otlp_http import OtlpHttpSettings
from mlspan_exporters.prometheus import PrometheusSettings
from mlspan_exporters.settings import duration_seconds, duration_text
from mlspan_exporters.tls import (
    TlsClientSettings,
    TlsServerSettings,
    client_context,
    read_pem,
    server_context,
)

from .conftest import Certificates

URL = "http://127.0.0.1:4318"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5s", 5), ("1h30m", 5400), ("300ms", 0.3), (".5s", 0.5), ("1.5m", 90), ("10us", 1e-5), ("0s", 0), (0, 0)],
)
def test_duration_is_read_as_go_writes_it(text: object, seconds: float) -> None:
    """Durations have units and may be sums."""
    assert duration_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["5", 5, 5.0, "", "s", "-5s", "5 s", "5x", True, None])
def test_duration_without_unit_is_refused(value: object) -> None:
    """A bare number is refused, since the Collector would read it as nanoseconds."""
    with pytest.raises(ValueError, match="write a number with a unit"):
        duration_seconds(value)


@pytest.mark.parametrize("text", ["5m", "250ms", "90s", "2h"])
def test_duration_text_is_read_back(text: str) -> None:
    """A duration's text means the same duration."""
    assert duration_seconds(duration_text(duration_seconds(text))) == duration_seconds(text)


def test_defaults_are_shown_as_durations() -> None:
    """The default of a duration appears as a user would write it."""
    assert PrometheusSettings().model_dump()["metric_expiration"] == "5m"


def test_header_values_are_hidden() -> None:
    """A token in a header does not appear in the settings' representation."""
    settings = OtlpHttpSettings.model_validate({"endpoint": URL, "headers": {"Authorization": "Bearer abc"}})
    assert "abc" not in repr(settings)
    assert "abc" not in settings.model_dump_json()


@pytest.mark.parametrize("headers", [{"a b": "x"}, {"": "x"}, {"a": "two\nlines"}, {"a": "ü"}])
def test_header_that_cannot_be_sent_is_refused(headers: dict[str, str]) -> None:
    """A header that no HTTP library would send is found at the start."""
    with pytest.raises(ValidationError, match="header"):
        OtlpHttpSettings.model_validate({"endpoint": URL, "headers": headers})


def test_certificate_needs_its_key() -> None:
    """A client certificate without key is a configuration error."""
    with pytest.raises(ValidationError, match="belong together"):
        TlsClientSettings(cert_file="c.pem")


def test_missing_pem_file_is_named_with_its_setting(tmp_path: Path) -> None:
    """A certificate file that is not there is an error that names setting and file."""
    path = str(tmp_path / "none.pem")
    with pytest.raises(OSError, match=r'tls.ca_file ".*none.pem" cannot be read: No such file'):
        read_pem(path, "ca_file")
    with pytest.raises(OSError, match=r"tls.cert_file"):
        server_context(TlsServerSettings(cert_file=path, key_file=path))


def test_pem_file_without_certificate_is_named(tmp_path: Path, certificates: Certificates) -> None:
    """A file that holds no certificate, or one that does not fit its key, is an error that names it."""
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    with pytest.raises(OSError, match=r'tls.ca_file ".*junk.pem" holds no certificate'):
        client_context(TlsClientSettings(ca_file=str(junk)))
    with pytest.raises(OSError, match="no matching PEM pair"):
        client_context(
            TlsClientSettings(cert_file=str(certificates.client_cert), key_file=str(certificates.server_key))
        )
    with pytest.raises(OSError, match=r'tls.client_ca_file ".*junk.pem" holds no certificate'):
        server_context(
            TlsServerSettings(
                cert_file=str(certificates.server_cert),
                key_file=str(certificates.server_key),
                client_ca_file=str(junk),
            )
        )
