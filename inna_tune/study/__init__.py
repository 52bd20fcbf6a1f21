"""Search, storage, workers, resume."""

from inna_tune.study.fingerprint import MismatchError
from inna_tune.study.storage import NetworkFileSystemWarning, StorageError, create_study, open_storage
from inna_tune.study.workers import Worker, ask, resume_summary

__all__ = [
    "MismatchError",
    "NetworkFileSystemWarning",
    "StorageError",
    "Worker",
    "ask",
    "create_study",
    "open_storage",
    "resume_summary",
]
