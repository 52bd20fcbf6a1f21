"""The versions and the hardware that results come from."""

import os
import platform
import sqlite3
import sys
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "torch",
    "optuna",
    "scikit-learn",
    "numpy",
    "pandas",
    "scipy",
    "pyarrow",
    "skrub",
    "sqlalchemy",
    "joblib",
    "safetensors",
    "matplotlib",
    "typer",
    "rich",
    "psycopg",
    "optuna-dashboard",
)
_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES")


def installed(package: str) -> str | None:
    """Version of a package; None where it isn't installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def describe_machine() -> dict[str, dict[str, str]]:
    """Say what a bug report should: versions, hardware, and the variables that decide on threads and devices.

    Returns
    -------
    dict of str to dict of str to str
        Under "versions", "hardware" and "environment"; nothing in it names a person, a host or a path.
    """
    import torch

    from inna_tune import __version__

    versions = {
        "inna-tune": __version__,
        "Python": f"{platform.python_version()} ({sys.implementation.name})",
    }
    versions |= {name: found for name in PACKAGES if (found := installed(name)) is not None}
    versions |= {"SQLite": sqlite3.sqlite_version}
    hardware = {
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "processor": _processor(),
        "processors": f"{_usable_processors()} usable of {os.cpu_count()}",
        "memory": _memory(),
        "torch threads": str(torch.get_num_threads()),
        "CUDA": _cuda(),
        "MPS": "available" if torch.backends.mps.is_available() else "none",
    }
    environment = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    return {"versions": versions, "hardware": hardware, "environment": environment}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or "unknown"


def _usable_processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not everywhere
        return "unknown"
    return f"{total / 2**30:.1f} GiB"


def _cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"{', '.join(names)} (CUDA {torch.version.cuda})"
