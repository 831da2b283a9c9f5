"""The licence is the one that the package's metadata names, word for word."""

import hashlib
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Of the text that apache.org and the distributions publish, with its empty first line.
APACHE_2 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def test_the_licence_is_the_text_of_apache_2_and_the_metadata_names_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "Apache-2.0"  # PEP 639: an SPDX expression
    assert project["license-files"] == ["LICENSE"]
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2
