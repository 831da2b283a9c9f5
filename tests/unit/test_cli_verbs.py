"""The commands that act."""

import os
import pwd
from collections.abc import Iterator
from datetime import UTC

import pytest
from msgspec.structs import replace

from console.commands import listings, verbs
from console.format import Moment
from engine.model.message import Selection
from engine.model.order import Changed, Fate, TouchedEntry
from tests.unit.fake_line import FakeLine, serving_line
from tests.unit.fake_relay import NOW, entry

ME = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLine]:
    monkeypatch.setattr(listings, "here_and_now", lambda: Moment(NOW, UTC))
    with serving_line() as line:
        yield line


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody sits there who can be asked."""
    monkeypatch.setattr(verbs, "on_terminal", lambda: True)


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (("retry", "domain=example.org"), ("retry", "domain=example.org", ME, None)),
        (("retry", "--all"), ("retry", "", ME, None)),
        (("postpone", "id=7", "--for", "2h"), ("postpone", "id=7", ME, NOW + 7200, None)),
        (("hold", "id=7", "--note", "odd one"), ("hold", "id=7", ME, "odd one", None)),
        (("release", "state=held", "from=ann@example.net"), ("release", "state=held from=ann@example.net", ME, None)),
        (("bounce", "id=7", "--yes"), ("bounce", "id=7", ME, "", 10.0, None)),
        (("drop", "id=7", "-y", "--now", "--note", "spam"), ("drop", "id=7", ME, "spam", 0.0, None)),
        (("undo", "41"), ("undo", 41, ME)),
    ],
)
def test_a_verb_acts_and_says_what_it_did(line: FakeLine, words: tuple[str, ...], call: tuple[object, ...]) -> None:
    result = line.run(*words)
    assert result.exit_code == 0, result.output
    assert line.engine.queue.calls == [call]
    assert result.stdout.startswith("2 recipients of 1 message are ")


def test_what_can_be_undone_comes_with_the_command_for_it(line: FakeLine) -> None:
    line.engine.queue.changed = Changed(messages=1, recipients=2, operation=41, due=NOW + 10)
    result = line.run("drop", "id=7", "--yes")
    assert result.stdout.splitlines()[1] == "until 08:00:10: smarthost undo 41"


def test_an_action_tells_json_too(line: FakeLine) -> None:
    rows = line.rows("retry", "id=7")
    assert [(row["verb"], row["messages"], row["recipients"], row["skipped"]) for row in rows] == [("retry", 1, 2, 1)]


@pytest.mark.parametrize("verb", ["retry", "hold", "release", "bounce", "drop"])
def test_no_filter_touches_nothing(line: FakeLine, verb: str) -> None:
    result = line.run(verb)
    assert result.exit_code == 1
    assert result.stderr == "nothing done: say which messages, or --all for every one\n"
    assert line.engine.queue.calls == []


def test_a_filter_and_all_do_not_go_together(line: FakeLine) -> None:
    assert line.run("retry", "id=7", "--all").exit_code == 2
    assert line.engine.queue.calls == []


@pytest.mark.parametrize("verb", ["retry", "hold", "release", "undo"])
def test_where_nothing_matches_it_says_so_and_leaves_one(line: FakeLine, verb: str) -> None:
    line.engine.queue.changed = Changed(messages=0, recipients=0)
    result = line.run(verb, "7" if verb == "undo" else "id=7")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "nothing is left to undo" in result.stderr or "no message in the queue matches" in result.stderr


def test_where_nothing_was_changed_it_leaves_one(line: FakeLine) -> None:
    line.engine.queue.changed = Changed(messages=0, recipients=0, skipped=2)
    result = line.run("hold", "id=7")
    assert result.exit_code == 1
    assert result.stderr == "nothing changed; 2 recipients left as they were: held already\n"


@pytest.mark.parametrize("verb", ["bounce", "drop"])
def test_giving_up_without_a_terminal_needs_yes(line: FakeLine, verb: str) -> None:
    result = line.run(verb, "id=7", input="y\n")
    assert result.exit_code == 1
    assert "there is no terminal to ask on; --yes" in result.stderr
    assert line.engine.queue.calls == []


@pytest.mark.usefixtures("terminal")
def test_giving_up_asks_with_exact_counts_and_touches_only_what_was_seen(line: FakeLine) -> None:
    result = line.run("drop", "from=ann@example.net", input="y\n")
    assert result.exit_code == 0
    assert result.stderr.splitlines()[:3] == [
        "Drop 3 recipients of 2 messages? Nobody is told. It can be undone for 10 s.",
        "  7.1  ann@example.net to bob1@example.org  hello",
        "  and 2 others",
    ]
    assert line.engine.queue.calls == [
        ("select", "from=ann@example.net", None),
        ("drop", "from=ann@example.net", ME, "", 10.0, 8),
    ]


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_any_answer_but_yes_does_nothing(line: FakeLine, answer: str) -> None:
    result = line.run("bounce", "id=7", input=answer)
    assert result.exit_code == 1
    assert [call[0] for call in line.engine.queue.calls] == ["select"]


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(("answer", "done"), [("3000\n", True), ("3,000\n", True), ("y\n", False), ("30\n", False)])
def test_over_a_thousand_messages_the_count_is_typed_out(line: FakeLine, answer: str, done: bool) -> None:
    line.engine.queue.selected = Selection(messages=3000, recipients=3000, newest=9, examples=(entry(7),))
    result = line.run("drop", "--all", input=answer)
    assert result.exit_code == (0 if done else 1)
    assert [call[0] for call in line.engine.queue.calls] == (["select", "drop"] if done else ["select"])


@pytest.mark.usefixtures("terminal")
def test_nothing_to_give_up_is_not_asked_about(line: FakeLine) -> None:
    line.engine.queue.selected = Selection(messages=0, recipients=0, newest=0)
    result = line.run("drop", "to=nobody", input="y\n")
    assert result.exit_code == 1
    assert result.stderr.startswith("nothing matches")


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(
    ("verb", "follows"),
    [
        ("retry", "This mail is due now."),
        ("hold", "This mail stays in the queue, unsent, until it is released."),
        ("release", "This mail may be sent again when it is due."),
    ],
)
def test_what_touches_several_messages_asks_where_somebody_sits(line: FakeLine, verb: str, follows: str) -> None:
    result = line.run(verb, "--all", input="y\n")
    assert result.exit_code == 0
    assert result.stderr.splitlines()[:3] == [
        f"{verb.capitalize()} 3 recipients of 2 messages? {follows}",
        "  7.1  ann@example.net to bob1@example.org  hello",
        "  and 2 others",
    ]
    asked, done = line.engine.queue.calls
    assert asked == ("select", "", None)
    assert (done[0], done[-1]) == (verb, 8), "no more than was seen"


@pytest.mark.usefixtures("terminal")
def test_for_how_long_it_is_postponed_stands_in_the_question(line: FakeLine) -> None:
    result = line.run("postpone", "--all", input="y\n")
    assert result.exit_code == 0
    asked = "Postpone 3 recipients of 2 messages for 1h? This mail is not tried meanwhile, and then goes by"
    assert result.stderr.startswith(asked)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(
    ("words", "outlasting", "said"),
    [
        (("postpone", "--for", "6d"), 2,
         "2 recipients would be given up within 6d: they are given up after that, unless they can be sent."),
        (("retry",), 1, "1 recipient has had its time: it is given up now, unless it can be sent."),
    ],
)  # fmt: skip
def test_how_many_would_be_given_up_sooner_stands_in_the_question(
    line: FakeLine, words: tuple[str, ...], outlasting: int, said: str
) -> None:
    line.engine.queue.selected = replace(line.engine.queue.selected, outlasting=outlasting)
    assert said in line.run(*words, "--all", input="y\n").stderr.splitlines()[0]


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("verb", ["retry", "hold", "release"])
@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_several_messages_are_left_alone_unless_the_answer_is_yes(line: FakeLine, verb: str, answer: str) -> None:
    result = line.run(verb, "domain=example.org", input=answer)
    assert result.exit_code == 1
    assert result.stderr.endswith(("nothing done\n", "Aborted!\n"))
    assert [call[0] for call in line.engine.queue.calls] == ["select"]


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("verb", ["retry", "hold", "release"])
def test_a_single_message_is_touched_without_a_question(line: FakeLine, verb: str) -> None:
    line.engine.queue.selected = Selection(messages=1, recipients=2, newest=8, examples=(entry(7),))
    assert line.run(verb, "id=7").exit_code == 0
    assert [call[0] for call in line.engine.queue.calls] == ["select", verb]


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("verb", ["retry", "hold", "release"])
def test_yes_asks_nothing(line: FakeLine, verb: str) -> None:
    assert line.run(verb, "--all", "--yes").exit_code == 0
    assert [call[0] for call in line.engine.queue.calls] == [verb]


@pytest.mark.parametrize(
    ("words", "lets_go", "question"),
    [
        (("mark-good", "mx1.dead.example"), ("mark", "mx1.dead.example"), "Mark mx1.dead.example good?"),
        (("resume", "example.org"), ("suspension", "example.org"), "Resume example.org?"),
        (("resume", "--all"), ("suspension", "*"), "Resume the relay?"),
        (("release-rule", "1"), ("rule", "1"), "Release rule 1?"),
        (("end-override", "example.org"), ("override", "example.org"), "End the override of example.org?"),
    ],
)
def test_what_lets_several_messages_go_asks_where_somebody_sits(
    line: FakeLine,
    words: tuple[str, ...],
    lets_go: tuple[str, str],
    question: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for before in (
        ("suspend", "example.org"),
        ("suspend", "--all"),
        ("hold-rule", "from=a@b.example"),
        ("override", "example.org", "mx.example.net"),
    ):
        assert line.run(*before).exit_code == 0
    line.engine.queue.calls.clear()
    monkeypatch.setattr(verbs, "on_terminal", lambda: True)
    refused = line.run(*words, input="n\n")
    assert refused.exit_code == 1
    assert refused.stderr.endswith("nothing done\n")
    assert refused.stderr.startswith(f"{question} It lets go 3 recipients of 2 messages. ")
    assert line.engine.queue.calls == [("lets_go", *lets_go)]
    assert line.run(*words, input="y\n").exit_code == 0
    assert line.run(*words).exit_code == 1, "it has ended"


def test_what_becomes_of_a_retry_is_told_until_it_is_known(line: FakeLine, monkeypatch: pytest.MonkeyPatch) -> None:
    line.engine.queue.touched = [TouchedEntry(7, 1, 0), TouchedEntry(7, 2, 0)]
    line.engine.queue.came_to = [Fate("delivered"), Fate("deferred", "450 4.2.1 mailbox busy", "reply")]
    result = line.run("retry", "id=7", "--follow")
    assert result.stdout.splitlines()[1:] == ["2 retried: 1 delivered, 1 refused again: 450 4.2.1 mailbox busy"]
    result_, followed = line.rows("retry", "id=7", "--follow")
    assert result_["follow"] == followed["operation"] == 41
    assert (followed["delivered"], followed["deferred"], followed["over"]) == (1, 1, True)


def test_suspensions_last_an_hour_unless_told_otherwise(line: FakeLine) -> None:
    assert line.run("suspend", "example.org").exit_code == 0
    assert line.run("suspend", "--all", "--for", "1h30m", "--note", "upgrade").exit_code == 0
    assert [(one.destination, one.until - one.since, one.note) for one in line.engine.queue.suspended] == [
        ("example.org", 3600, ""),
        ("*", 5400, "upgrade"),
    ]
    assert line.run("resume", "--all").exit_code == 0
    assert line.run("resume", "example.org").exit_code == 0
    result = line.run("resume", "example.org")
    assert (result.exit_code, result.stderr) == (1, "destination: example.org is not suspended\n")


@pytest.mark.parametrize("words", [("suspend",), ("suspend", "example.org", "--all"), ("resume",)])
def test_a_suspension_needs_a_destination_or_all(line: FakeLine, words: tuple[str, ...]) -> None:
    assert line.run(*words).exit_code == 2
    assert line.engine.queue.suspended == []


def test_a_host_is_marked_bad_for_as_long_as_is_said(line: FakeLine) -> None:
    result = line.run("mark-bad", "mx1.example.org", "--for", "30m", "--note", "slow")
    assert (result.exit_code, result.stdout) == (
        0,
        "mx1.example.org is marked bad for 30m: it is left out until then\n",
    )
    assert line.run("mark-bad", "mx2.example.org").exit_code == 0
    assert [call[1:4] for call in line.engine.mx.calls] == [
        ("mx1.example.org", 1800.0, "slow"),
        ("mx2.example.org", None, ""),
    ]


def test_what_is_noted_may_be_called_a_reason_for_one_more_version(line: FakeLine) -> None:
    assert line.run("suspend", "--all", "--for", "1h", "--reason", "upgrade").exit_code == 0
    assert [each.note for each in line.engine.queue.suspended] == ["upgrade"]


@pytest.mark.parametrize("lasting", ["soon", "10", "30s", "31d", ""])
def test_a_wrong_duration_is_wrong_usage(line: FakeLine, lasting: str) -> None:
    result = line.run("mark-bad", "mx1.example.org", "--for", lasting)
    assert result.exit_code == 2
    assert "--for" in result.stderr
    assert line.engine.mx.calls == []


def test_a_host_is_marked_good(line: FakeLine) -> None:
    result = line.run("mark-good", "mx1.dead.example")
    assert result.exit_code == 0
    assert "2,204 recipients" in result.stdout
    result = line.run("mark-good", "mx9.example.org")
    assert (result.exit_code, result.stderr) == (1, "host: mx9.example.org is not marked bad\n")


def test_what_is_no_host_is_refused_with_what_is_allowed(line: FakeLine) -> None:
    result = line.run("mark-bad", "mx1 example")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[1].startswith("allowed: letters")


def test_a_check_says_what_it_opened(line: FakeLine) -> None:
    result = line.run("check")
    assert (result.exit_code, result.stdout) == (0, "checked: 1 new connection, 3 open in all\n")
