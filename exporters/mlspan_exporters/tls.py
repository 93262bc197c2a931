"""Stage 8, TLS: one block of settings, as the Collector's `tls`, for connections out and for servers.

Reads certificate files when an exporter starts, not when the configuration is read. Every message names the
setting and the file.
"""

import ssl
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from .settings import Settings


class TlsClientSettings(Settings):
    """How a connection to a backend is secured."""

    insecure: bool = Field(
        default=False, description="Send in clear text (gRPC; HTTP endpoints say it by their scheme)."
    )
    insecure_skip_verify: bool = Field(
        default=False, description="Accept any server certificate. HTTP only: gRPC for Python cannot do it."
    )
    ca_file: str | None = Field(
        default=None, description="PEM file of the authorities to trust, instead of the system's."
    )
    cert_file: str | None = Field(default=None, description="PEM file of the client's certificate (mutual TLS).")
    key_file: str | None = Field(default=None, description="PEM file of the client certificate's private key.")
    server_name_override: str | None = Field(
        default=None,
        description="Name to expect in the server's certificate, instead of the endpoint's host.",
    )

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            msg = "cert_file and key_file belong together: set both or neither"
            raise ValueError(msg)
        return self


class TlsServerSettings(Settings):
    """How a port that others connect to is secured."""

    cert_file: str = Field(description="PEM file of the server's certificate.")
    key_file: str = Field(description="PEM file of the certificate's private key.")
    client_ca_file: str | None = Field(
        default=None,
        description="PEM file of the authorities whose client certificates are asked for and accepted.",
    )


def read_pem(path: str | None, setting: str) -> bytes | None:
    """Return the file's bytes, None where the setting is not set; OSError names the setting and the file."""
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        msg = f'tls.{setting} "{path}" cannot be read: {error.strerror}'
        raise OSError(msg) from error


def client_context(tls: TlsClientSettings) -> ssl.SSLContext:
    """Return the context of an HTTPS connection.

    Raises:
        OSError: a file cannot be read or holds no usable certificate or key.
    """
    ca = read_pem(tls.ca_file, "ca_file")
    try:
        context = ssl.create_default_context(cadata=ca.decode() if ca is not None else None)
    except (ssl.SSLError, ValueError) as error:
        msg = f'tls.ca_file "{tls.ca_file}" holds no certificate in PEM format'
        raise OSError(msg) from error
    if tls.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.cert_file is not None and tls.key_file is not None:
        _load_pair(context, tls.cert_file, tls.key_file)
    return context


def server_context(tls: TlsServerSettings) -> ssl.SSLContext:
    """Return the context of a listening socket.

    Raises:
        OSError: a file cannot be read or holds no usable certificate or key.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _load_pair(context, tls.cert_file, tls.key_file)
    if tls.client_ca_file is not None:
        read_pem(tls.client_ca_file, "client_ca_file")
        try:
            context.load_verify_locations(tls.client_ca_file)
        except ssl.SSLError as error:
            msg = f'tls.client_ca_file "{tls.client_ca_file}" holds no certificate in PEM format'
            raise OSError(msg) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _load_pair(context: ssl.SSLContext, cert_file: str, key_file: str) -> None:
    read_pem(cert_file, "cert_file")
    read_pem(key_file, "key_file")
    try:
        context.load_cert_chain(cert_file, key_file)
    except ssl.SSLError as error:
        msg = f'tls.cert_file "{cert_file}" and tls.key_file "{key_file}" are no matching PEM pair'
        raise OSError(msg) from error
