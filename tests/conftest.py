"""Shared by all tests."""

import functools
import gc
import os

import hypothesis
import typer.testing

# While modules are loaded and tests collected, all that is made stays: looks for garbage find none.
gc.disable()

# Small nets on few cores: more threads than one cost more than they bring, and tests must not depend on their number.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples in every run, so that a failure is one of the change that is tested, and no time to explain what
# failed: shrinking does. Whoever looks for new examples says INNA_TUNE_HYPOTHESIS=random.
_PHASES = [phase for phase in hypothesis.Phase if phase is not hypothesis.Phase.explain]
hypothesis.settings.register_profile("suite", derandomize=True, deadline=None, phases=_PHASES)
hypothesis.settings.register_profile("random", deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("INNA_TUNE_HYPOTHESIS", "suite"))

# A runner of commands builds all of them anew for each that it runs, though they stay the same.
typer.testing._get_command = functools.cache(typer.testing._get_command)


def pytest_collection_finish(session):
    """Leave the modules and the tests, which stay, out of every later look for garbage."""
    gc.collect()
    gc.freeze()
    gc.enable()
