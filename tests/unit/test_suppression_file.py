"""The suppression list as a file: what we write is read again, and so is what others export."""

import pytest

from console.commands.suppression_file import MOST_WRONG, Reading, WrongLines, header, written
from engine.model.suppression import Entry, Suppressed

NOW = 1_793_000_000.0  # 2026-10-26


def read(text: str) -> list[Entry | None]:
    return [one.entry for one in Reading(text.splitlines(keepends=True), NOW).entries()]


def wrong(text: str) -> tuple[str, ...]:
    with pytest.raises(WrongLines) as refused:
        read(text)
    return refused.value.problems


def test_what_is_written_is_read_again_whole() -> None:
    rows = (
        Suppressed(address="bob@gone.example", since=NOW - 9, until=NOW + 99, reply='550 5.1.1 "bob", who?'),
        Suppressed(address='"a,b"@x.example', since=NOW - 99, by="ann (uid 7)", note="asked; us, not to"),
        Suppressed(address="ö@x.example", since=NOW - 99, by="ann"),
    )
    text = "\n".join([header(), *written(rows)]) + "\n"
    assert text.startswith("address,since,until,by,reply,note\nbob@gone.example,2026-10-2")
    assert [
        Suppressed(
            address=one.address, since=one.since or 0, until=one.until, by=one.by, reply=one.reply, note=one.note
        )
        for one in read(text)
        if one is not None
    ] == list(rows)
    assert read(text.replace("\n", "\r\n")) == read(text)
    assert read("\ufeff" + text) == read(text)


def test_a_list_of_addresses_alone_is_read() -> None:
    text = 'bob@gone.example\n\n <Eve@Gone.example> \n"john doe"@x.example\n#1@x.example\n'
    assert [one.address for one in read(text) if one] == [
        "bob@gone.example", "Eve@gone.example", '"john doe"@x.example', "#1@x.example",
    ]  # fmt: skip
    assert read("") == read("\n\n") == []


@pytest.mark.parametrize(
    ("text", "since", "reply"),
    [
        ("status,reason,email,created\n5.1.1,550 no user,bob@x.example,1790000000\n", 1_790_000_000.0, "550 no user"),
        (
            'Address,Code,Error,Created At\nbob@x.example,550,no user,"Mon, 21 Sep 2026 14:13:20 UTC"\n',
            1_790_000_000.0,
            "no user",
        ),
        ("E-Mail,Time\nbob@x.example,2026-09-21T16:13:20+02:00\n", 1_790_000_000.0, ""),
        ("recipient,date\nbob@x.example,2026-09-21\n", 1_789_948_800.0, ""),
        ("email,reason,created\nbob@x.example\n", None, ""),
    ],
)
def test_what_mail_providers_export_is_read(text: str, since: float | None, reply: str) -> None:
    assert read(text) == [Entry(address="bob@x.example", since=since, reply=reply)]


def test_columns_that_are_not_known_are_named() -> None:
    reading = Reading(["email,Group\x1b[31m,status\n", "bob@x.example,a,b\n"], NOW)
    assert len(list(reading.entries())) == 1
    assert len(reading.left_out) == 2
    assert all(name.isprintable() for name in reading.left_out)


def test_what_is_over_is_left_out_and_what_is_to_come_began_now() -> None:
    text = "address,since,until\nbob@x.example,,2026-01-01\neve@x.example,2030-01-01,\n"
    assert read(text) == [None, Entry(address="eve@x.example", since=NOW)]


def test_each_wrong_line_is_told_with_what_is_wrong() -> None:
    assert wrong("bob@x.example\nnobody\nbob@x.example,550\n") == (
        "line 2: nobody: no @ after the local part",
        wrong("bob@x.example,550\n")[0].replace("line 1", "line 3"),
    )
    assert wrong("bob@x.example,550\n")[0].endswith("where more stands in a line, a first line names it")
    (problem,) = wrong("address,until\n\nbob@x.example,soon\n")
    assert problem == "line 3: until: 'soon' is no time; write it as 2026-11-02T09:15:00Z"
    assert "line 2: since: " in wrong("address,since\nbob@x.example,99999999999999999999\n")[0]
    assert "line 2: empty" in wrong("address,note\n,x\n")[0]
    assert "line 3: no CSV: " in wrong('address,note\nbob@x.example,x\nbob@x.example,"x"y\n')[0]
    assert all(line.isprintable() for line in wrong("b\x1b[31mob@x.example\n\udc80@x.example\n"))
    many = wrong("nobody\n" * 100)
    assert (len(many), many[-1]) == (MOST_WRONG + 1, "and maybe more")
