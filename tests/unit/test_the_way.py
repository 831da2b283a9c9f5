"""The way of one message: seven files, each naming the one before and the one after it, as README tells it."""

import ast
import inspect
import re
from pathlib import Path

import pytest

from tests.unit.test_readme import ROOT, in_backticks, named, section

WAY = (
    ("In", "engine.intake.smtp.session"),
    ("Wait", "engine.queue.contract"),
    ("Choose", "engine.delivery.smarthost"),
    ("Carry", "engine.delivery.relayer"),
    ("Find", "engine.delivery.routes"),
    ("Send", "engine.smtpclient.session"),
    ("Settle", "engine.delivery.attempt"),
)
STEPS = re.findall(r"(?ms)^(\d)\. \*\*(\w+)\.\*\* (.*?)(?=^\d\. |\n\n)", section("The way of one message"))


def file_of(module: str) -> str:
    return module.replace(".", "/") + ".py"


def said_of(module: str) -> str:
    """What a file says of its place."""
    doc = ast.get_docstring(ast.parse((ROOT / file_of(module)).read_text(encoding="utf-8"))) or ""
    (place,) = re.findall(r"(?s)The way of a message, (.*)", doc)
    return " ".join(str(place).split())


@pytest.mark.parametrize(("number", "module"), [(number, module) for number, (_, module) in enumerate(WAY, 1)])
def test_each_file_names_the_one_before_and_the_one_after_it(number: int, module: str) -> None:
    before = [WAY[number - 2][1]] if number > 1 else []
    after = WAY[number][1] if number < len(WAY) else "engine.control"
    place = said_of(module)
    assert place.startswith(f"{number} of {len(WAY)}: ")
    assert re.findall(r"(?i)from (engine[\w.]*\w)", place) == before
    assert re.findall(r"on to (engine[\w.]*\w)", place, re.IGNORECASE) == [after]


def test_the_folder_is_a_way_in_as_well() -> None:
    assert said_of("engine.intake.drop.folder").startswith("1 of 7: ")
    assert said_of("engine.intake.drop.folder").endswith("On to engine.queue.contract.")


def test_readme_tells_the_same_files_in_the_same_order() -> None:
    assert [(int(number), word) for number, word, _ in STEPS] == [
        (number, word) for number, (word, _) in enumerate(WAY, 1)
    ]
    for (_, module), (_, _, text) in zip(WAY, STEPS, strict=True):
        assert in_backticks(text)[0] == file_of(module)


def test_each_step_names_a_function_or_a_class_of_its_own_file_or_of_what_it_hands_the_mail_to() -> None:
    for (_, module), (_, word, text) in zip(WAY, STEPS, strict=True):
        if word in ("In", "Wait"):  # the one hands it to the contract, the other is one
            continue
        own = [one for one in in_backticks(text) if one.startswith(f"{module}.")]
        assert own, word
        for one in own:
            assert Path(inspect.getsourcefile(named(one)) or "") == ROOT / file_of(module)
