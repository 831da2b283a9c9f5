"""What is said at our door that is no SMTP: requests of HTTP, and lines of a header that somebody sends blindly."""

import re
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

Method = Callable[..., Coroutine[Any, Any, None]]

_HTTP = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PRI", "PUT", "TRACE"})
_FIELD = re.compile(r"[!-9;-~]+:")  # as `Host:`; RFC 5322 2.2


def is_strange(command: str) -> bool:
    """Whether the first word of a line, in capitals, belongs to HTTP or begins a header field.

    No command of SMTP is called so (RFC 5321 4.1.1). Postfix sends these away as well (smtpd_forbidden_commands).
    """
    return command in _HTTP or _FIELD.match(command) is not None


class Commands(dict[str, Method]):
    """The commands of a session by name; what is no SMTP at all is answered by `strange`."""

    def __init__(self, known: Mapping[str, Method], strange: Method) -> None:
        super().__init__(known)
        self._strange = strange

    def get(self, command: str, default: Any = None) -> Any:
        """The method of a command, as the library asks for it."""
        found = super().get(command, default)
        return self._strange if found is None and is_strange(command) else found
