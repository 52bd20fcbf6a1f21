"""Search, storage, workers, resume."""
