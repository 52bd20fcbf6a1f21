"""A warning on the command line is a line of words, said once, without the place in the code."""

import warnings

import pytest

from inna_tune.cli import console, program
from inna_tune.estimators import DroppedColumnWarning


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(program, "_said", set())


def show(message, **options):
    program._show_warning(DroppedColumnWarning(message), DroppedColumnWarning, __file__, 1, **options)


def test_it_is_one_line_and_said_once(capsys):
    for _ in range(3):
        show("Left out\n\x1b[31mred")
    show("another")
    said = capsys.readouterr().err
    assert said.count("Left out") == 1
    assert said.count("\n") == 2
    assert "\x1b" not in said
    assert "another" in said
    assert __file__ not in said


def test_whoever_debugs_sees_where_it_arose(capsys, monkeypatch):
    monkeypatch.setattr(console, "_debug", True)
    show("Left out")
    assert __file__ in capsys.readouterr().err


def test_what_is_to_be_written_elsewhere_is_as_ever(tmp_path):
    with open(tmp_path / "file", "w+") as file:
        show("Left out", file=file)
        file.seek(0)
        expected = warnings.formatwarning(DroppedColumnWarning("Left out"), DroppedColumnWarning, __file__, 1)
        assert file.read() == expected
