"""All fuzzers, by name."""

from collections.abc import Callable
from typing import Any

from tests.fuzz.control_requests import ControlRequests
from tests.fuzz.dns_answers import DnsAnswers
from tests.fuzz.drop_files import DropFiles
from tests.fuzz.filters import Filters
from tests.fuzz.fuzzing import Fuzzer
from tests.fuzz.smtp_client import SmtpClient
from tests.fuzz.smtp_server import SmtpServer

FUZZERS: dict[str, Callable[[], Fuzzer[Any]]] = {
    "server": SmtpServer,
    "client": SmtpClient,
    "dns": DnsAnswers,
    "drop": DropFiles,
    "control": ControlRequests,
    "filters": Filters,
}
