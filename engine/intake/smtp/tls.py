"""The TLS that submission offers."""

import ssl
from pathlib import Path

from engine.base.permission import why_not
from engine.intake.errors import IntakeError
from engine.settings.settings import Submission

HANDSHAKE = 30  # seconds a client may take for it
SHUTDOWN = 5  # seconds it may take to say goodbye


def server_context(submission: Submission) -> ssl.SSLContext:
    """The context with which submission answers. Raises IntakeError naming the setting."""
    return context_of(submission.certificate, submission.key, "intake.submission")


def context_of(certificate: Path | None, key: Path | None, at: str) -> ssl.SSLContext:
    """A server's context of TLS 1.2 or newer (RFC 8996), by the settings below `at`. Raises IntakeError naming them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    certificate, key = _readable(f"{at}.certificate", certificate), _readable(f"{at}.key", key)
    try:
        # A key that wants a passphrase would ask for it on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", "") or str(error)
        raise IntakeError(
            f"{at}.certificate: {certificate} and the key {key} are of no use together: {reason};"
            " allowed are a certificate and its key in PEM, the key without a passphrase"
        ) from error
    return context


def _readable(name: str, path: Path | None) -> Path:
    if path is None:
        raise IntakeError(f"{name}: missing; write the path of a PEM file")
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise IntakeError(f"{name}: {why_not(error, path, 'read')}; it must be a file we may read") from error
