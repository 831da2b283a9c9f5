"""The settings of connections and limits: read as written, and what is wrong is named with what is allowed."""

from pathlib import Path

import pytest

from engine.settings.file import SettingsError, load
from engine.settings.settings import Delivery, Limit

GOOD = """
[delivery]
initial_connections = 3
idle = "0s"
connection_lifetime = "10m"
max_addresses = 7
max_sessions = 3
bad_mx_timeout = "30m"
bad_mx_timeout_max = "4h"
[[limit]]
destination = "Gmail.com"
connections = 10
messages_per_connection = 50
[[limit]]
destination = "*.Google.com"
messages_per_minute = 600
connections_per_minute = 30
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "smarthost.toml"
    path.write_text(text)
    return path


def test_they_are_read_as_written(tmp_path: Path) -> None:
    settings = load(written(tmp_path, GOOD))
    assert settings.delivery == Delivery(
        initial_connections=3,
        idle=0.0,
        connection_lifetime=600.0,
        max_addresses=7,
        max_sessions=3,
        bad_mx_timeout=1800.0,
        bad_mx_timeout_max=14_400.0,
    )
    assert settings.limit == (
        Limit(destination="gmail.com", connections=10, messages_per_connection=50),
        Limit(destination="*.google.com", messages_per_minute=600, connections_per_minute=30),
    )


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("[delivery]\nidle = -1", "delivery.idle", "more than 0s"),
        ("[delivery]\nidle = false", "delivery.idle", "duration"),
        ("[delivery]\nconnection_lifetime = 0", "delivery.connection_lifetime", "more than 0s"),
        ("[delivery]\nmax_addresses = 0", "delivery.max_addresses", "1 to 100"),
        ("[delivery]\nmax_sessions = 101", "delivery.max_sessions", "1 to 100"),
        ("[delivery]\ninitial_connections = 0", "delivery.initial_connections", "1 to"),
        ('[delivery]\nbad_mx_timeout = "9h"', "delivery.bad_mx_timeout_max", "or more"),
        ("[limit]\nconnections = 1", "limit", "[[limit]]"),
        ('[[limit]]\ndestination = "a.example"', "limit[0]", "messages_per_minute"),
        ("[[limit]]\nconnections = 1", "limit[0].destination", "missing"),
        ('[[limit]]\ndestination = "a.example"\nconnections = 0', "limit[0].connections", "1 to"),
        ('[[limit]]\ndestination = "*"\nconnections = 1', "limit[0].destination", "*.example.com"),
        ('[[limit]]\ndestination = "mx*.example"\nconnections = 1', "limit[0].destination", "*.example.com"),
        ('[[limit]]\ndestination = "a.example"\nconections = 1', "limit[0].conections", "connections"),
        (
            '[[limit]]\ndestination = "b.example"\nconnections=1\n[[limit]]\ndestination = "B.example"\nconnections=2',
            "limit[1].destination",
            "one limit for each",
        ),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(tmp_path: Path, text: str, key: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(written(tmp_path, text))
    assert any(problem.startswith(f"{key}:") and words in problem for problem in caught.value.problems), caught.value
