"""Programs that interop tests need; without them the tests are skipped and say which is missing."""

import os
import shutil
import subprocess

import pytest


def program(name: str) -> str:
    """Where a program is. It may lie where only root looks."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    return found or ""


def needs(*names: str) -> pytest.MarkDecorator:
    """Skip without these programs."""
    missing = [name for name in names if not program(name)]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def needs_perl_module(name: str, package: str) -> pytest.MarkDecorator:
    """Skip without a module of Perl, which is in this package of Debian."""
    return pytest.mark.skipif(not _perl_has(name), reason=f"not installed: {name} ({package})")


def _perl_has(name: str) -> bool:
    ask = [program("perl"), f"-M{name}", "-e1"]
    return bool(ask[0]) and subprocess.run(ask, capture_output=True, check=False).returncode == 0


needs_swaks_with_tls = pytest.mark.skipif(
    not _perl_has("Net::SSLeay"), reason="not installed: Net::SSLeay (libnet-ssleay-perl), which gives swaks TLS"
)
