"""A member is the same bits in any company, whatever its net, on any processor."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.company import CHOICES, Setting, broken_promises

SETTINGS = st.builds(
    Setting,
    seed=st.integers(0, 2**31),
    **{name: st.sampled_from(choices) for name, choices in CHOICES.items()},
)


@settings(max_examples=12, deadline=None)
@given(setting=SETTINGS)
def test_a_member_is_the_same_bits_in_any_company(setting):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert broken_promises(setting) == []
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(("mkl", "aten"), [("AVX2", "avx2"), ("SSE4_2", "default")])
def test_so_it_is_with_the_kernels_of_other_processors(mkl, aten):
    """MKL listens on Intel's processors only; on others it has one set of kernels, which the test above tries."""
    environment = os.environ | {"MKL_ENABLE_INSTRUCTIONS": mkl, "ATEN_CPU_CAPABILITY": aten}
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.engine.company", "0", "4"],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert "4 of 4 settings" in told.stdout
