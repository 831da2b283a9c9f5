"""The arguments of MAIL and RCPT are taken apart without being rewritten."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.intake.smtp.command import SyntaxProblem, read_argument


@pytest.mark.parametrize(
    ("text", "path", "parameters"),
    [
        ("FROM:<a@b>", "<a@b>", {}),
        ("from: <a@b>", "<a@b>", {}),
        ("FROM:<>", "<>", {}),
        ("FROM:a@b", "a@b", {}),
        ("FROM:<a@b> SIZE=10  body=8BITMIME SMTPUTF8", "<a@b>", {"SIZE": "10", "BODY": "8BITMIME", "SMTPUTF8": None}),
        ('FROM:<"a> b"@c> SIZE=1', '<"a> b"@c>', {"SIZE": "1"}),
        ('FROM:"a b"@c SIZE=1', '"a b"@c', {"SIZE": "1"}),
        ('FROM:<"a\\"> "@c> X', '<"a\\"> "@c>', {"X": None}),
        ("FROM:<a@b", "<a@b", {}),
    ],
)
def test_an_argument_is_a_path_and_parameters(text: str, path: str, parameters: dict[str, str | None]) -> None:
    read = read_argument(text, "FROM:")
    assert (read.path, read.parameters) == (path, parameters)


@pytest.mark.parametrize(
    "text",
    [None, "", "FROM", "TO:<a@b>", "FROM:", "FROM: ", "FROM:<a@b>SIZE=1", "FROM:<a@b> =1", "FROM:<a@b> SIZE=",
     'FROM:<"a@b>', 'FROM:"a@b', "FROM:<" + '"' * 100_001 + "@b>", "FROM:<a@b> SIZE=1 size=2",
     "FROM:<a@b> Ä=1", "FROM:<a@b> ?"],
)  # fmt: skip
def test_anything_else_is_refused(text: str | None) -> None:
    with pytest.raises(SyntaxProblem):
        read_argument(text, "FROM:")


@given(st.text(max_size=100))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read = read_argument("TO:" + text, "TO:")
    except SyntaxProblem:
        return
    assert read.path in text
