"""The names that the administrator of this machine gave to addresses, hosts(5): read before DNS is asked.

They count for the hosts that an operator names alone. What a stranger's DNS names as an exchange means what that DNS
says of it, whatever this machine calls its neighbours.
"""

from ipaddress import ip_address
from pathlib import Path

PATH = Path("/etc/hosts")
MOST_READ = 2**20  # bytes of the file


class HostsFile:
    """Gives the addresses of a name. The file is read again when it has changed; one that cannot be read names none."""

    def __init__(self, path: Path = PATH) -> None:
        self._path = path
        self._read = (0, 0)
        self._found: dict[str, list[str]] = {}

    def addresses(self, name: str) -> list[str]:
        """The addresses of a host, in the order of the file; [] where it does not name it."""
        try:
            stat = self._path.stat()
            if self._read != (stat.st_mtime_ns, stat.st_size):
                with self._path.open("rb") as file:
                    self._found = _read(file.read(MOST_READ).decode("utf-8", "replace"))
                self._read = (stat.st_mtime_ns, stat.st_size)
        except OSError:
            self._found, self._read = {}, (0, 0)
        return list(self._found.get(name.lower().removesuffix("."), ()))


def _read(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        try:
            written = str(ip_address(address))
        except ValueError:
            continue
        for name in names:
            known = found.setdefault(name.lower().removesuffix("."), [])
            if written not in known:
                known.append(written)
    return found
