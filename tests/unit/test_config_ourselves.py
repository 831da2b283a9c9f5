"""The settings of where no mail goes: read as written, and a route to this relay itself is named."""

from pathlib import Path

import pytest

from engine.settings.file import SettingsError, load
from engine.settings.names import network
from engine.settings.settings import Delivery


def written(folder: Path, text: str) -> Path:
    path = folder / "smarthost.toml"
    path.write_text(text)
    return path


def route(host: str, port: int = 2525) -> str:
    return f'[[route]]\ndomain = "*"\nhost = "{host}"\nport = {port}\n'


def test_they_are_read_as_written_and_refuse_nothing_by_default(tmp_path: Path) -> None:
    assert (Delivery().refuse_networks, Delivery().loopback_exchanges) == ((), False)
    text = '[delivery]\nrefuse_networks = ["10.0.0.0/8", "fc00::/7", "192.0.2.1"]\nloopback_exchanges = true'
    assert load(written(tmp_path, text)).delivery == Delivery(
        refuse_networks=(network("10.0.0.0/8"), network("fc00::/7"), network("192.0.2.1/32")), loopback_exchanges=True
    )


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("[delivery]\nrefuse_networks = '10.0.0.0/8'", "delivery.refuse_networks: '10.0.0.0/8' is not a list", "[ ]"),
        ("[delivery]\nrefuse_networks = ['inside']", "delivery.refuse_networks[0]: 'inside' is no network", "192.0.2"),
        ("[delivery]\nrefuse_networks = ['10.1.0.0/8']", "delivery.refuse_networks[0]", "10.0.0.0/8 is the network"),
        ("[delivery]\nloopback_exchanges = 1", "delivery.loopback_exchanges: 1", "true nor false"),
        (
            route("127.0.0.1"),
            "route[0].host: mail would come back: 127.0.0.1",
            "any host and port but this relay's own",
        ),
        (route("localhost"), "route[0].host: mail would come back: localhost", "listens, on 127.0.0.1:2525"),
        (route("::ffff:127.0.0.1"), "route[0].host: mail would come back", "listens, on 127.0.0.1:2525"),
        (route("0.0.0.0", 25), "route[0].host: mail would come back: 0.0.0.0", "means itself"),
        ('[intake.smtp]\nlisten = ["[::]:25"]\n' + route("::1", 25), "route[0].host", "listens, on [::]:25"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(tmp_path: Path, text: str, key: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(written(tmp_path, text))
    (problem,) = caught.value.problems
    assert problem.startswith(key)
    assert words in problem


def test_a_neighbour_on_this_machine_may_be_a_route(tmp_path: Path) -> None:
    """A filter of content, say, which hands the mail back to another port."""
    assert load(written(tmp_path, route("127.0.0.1", 10025))).route[0].port == 10025
    assert load(written(tmp_path, route("127.0.0.2"))).route[0].host == "127.0.0.2"
