"""The SMTP client that the tests hand mail over with."""

import aiosmtplib

NAME = "client.example"


def smtp_client(port: int, host: str = "127.0.0.1", *, timeout: float = 60) -> aiosmtplib.SMTP:
    """A client in clear text, not yet connected; `timeout` in seconds, for each command.

    It is told its name: left alone it would ask the machine's name servers, which may take minutes to be silent.
    """
    return aiosmtplib.SMTP(hostname=host, port=port, start_tls=False, local_hostname=NAME, timeout=timeout)
