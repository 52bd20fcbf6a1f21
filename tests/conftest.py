"""Shared by all tests."""

import os

# Small nets on few cores: more threads than one cost more than they bring, and tests must not depend on their number.
os.environ.setdefault("OMP_NUM_THREADS", "1")
