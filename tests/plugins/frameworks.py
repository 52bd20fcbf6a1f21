"""Frameworks that tests of the adapters need: here, or in an environment of their own (test_environments.py)."""

import importlib.util
import os

import pytest

# The module of each, and what installs it.
FRAMEWORKS = {
    "autogluon": ("autogluon.tabular", "autogluon.tabular"),
    "flaml": ("flaml", "flaml[automl]"),
    "optunahub": ("optunahub", "optunahub"),
    "ray": ("ray.tune", "ray[tune]"),
}


def is_installed(name):
    parent, _, _ = FRAMEWORKS[name][0].partition(".")
    return importlib.util.find_spec(parent) is not None


def required():
    """Those that must not be skipped, as ``INNA_TUNE_FRAMEWORKS`` names them."""
    return set(filter(None, os.environ.get("INNA_TUNE_FRAMEWORKS", "").split(",")))


def need(name, *, whole_file=False):
    """Skip a test, or a file of tests, that needs a framework where it is not installed; fail where it is required."""
    if is_installed(name):
        return
    reason = (
        f"{name} is not installed: pip install 'inna-tune[{name}]', or pytest -m slow tests/plugins, which tests it in an "
        "environment of its own"
    )
    if name in required():
        raise RuntimeError(f"INNA_TUNE_FRAMEWORKS requires {name}, and {reason}")
    pytest.skip(reason, allow_module_level=whole_file)
