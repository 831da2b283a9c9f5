"""hosts(5), as administrators write it."""

import os
from pathlib import Path

from engine.dns.hosts_file import HostsFile

WRITTEN = """
127.0.0.1 localhost
10.0.0.5\tMail.Internal.Example mail   # the old one
10.0.0.6 mail.internal.example 10.0.0.6
fd00::25  mail.internal.example
300.1.1.1 nobody
# 10.0.0.9 mail
10.0.0.7
"""


def test_a_name_has_the_addresses_of_all_its_lines_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text(WRITTEN)
    file = HostsFile(tmp_path / "hosts")
    assert file.addresses("mail.internal.example") == ["10.0.0.5", "10.0.0.6", "fd00::25"]
    assert file.addresses("MAIL.") == ["10.0.0.5"]
    assert file.addresses("nobody") == []


def test_a_file_that_has_changed_is_read_again_and_one_that_is_gone_names_nobody(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    file = HostsFile(path)
    assert file.addresses("mail") == []
    path.write_text("10.0.0.5 mail\n")
    assert file.addresses("mail") == ["10.0.0.5"]
    path.write_text("10.0.0.6 mail\n")
    os.utime(path, ns=(1, 1))
    assert file.addresses("mail") == ["10.0.0.6"]
    path.write_bytes(b"\xff\xfe 10.0.0.7 mail\n10.0.0.8 mail\n")
    assert file.addresses("mail") == ["10.0.0.8"]
    path.unlink()
    assert file.addresses("mail") == []
