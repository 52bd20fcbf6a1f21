"""The examples in the docstrings of all modules run, and give what they say."""

import doctest
import pkgutil
from importlib import import_module

import pytest

import inna_tune
from tests.plugins.frameworks import FRAMEWORKS, need

MODULES = ["inna_tune", *(m.name for m in pkgutil.walk_packages(inna_tune.__path__, "inna_tune."))]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module(name):
    parent, _, framework = name.rpartition(".")
    if parent == "inna_tune.plugins" and framework in FRAMEWORKS:
        need(framework)
    failed, _ = doctest.testmod(
        import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    assert failed == 0


@pytest.mark.parametrize("name", inna_tune.__all__)
def test_every_public_name_has_an_example(name):
    assert ">>>" in getattr(inna_tune, name).__doc__
