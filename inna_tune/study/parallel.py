"""Several workers on one study: processes that joblib places, here or on a cluster, each with the storage open."""

import copy
import logging
import os
import pickle
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import joblib
import optuna
import torch
from joblib.externals.loky import ProcessPoolExecutor
from joblib.externals.loky.process_executor import BrokenProcessPool
from joblib.parallel import LokyBackend, MultiprocessingBackend, get_active_backend
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage

from inna_tune.engine.width import torch_threads
from inna_tune.store.opening import open_store, storage_errors, store_of
from inna_tune.store.workers import Worker, resume_summary
from inna_tune.study.budget import Budget
from inna_tune.study.callbacks import Callback, call_back, is_stopped
from inna_tune.study.job import Job
from inna_tune.study.running import TrialRunner
from inna_tune.study.signals import Abandonment, Signals, Stopped, either

logger = logging.getLogger(__name__)

_LOOK_EVERY = 0.1  # seconds between looks for finished trials and signals
# Times a worker may end before its work is done, for each of them, and without a trial finished in between.
_ATTEMPTS = 3
# Seconds that a process without work lives on: one whose parent was killed has to see for itself that none will come.
_IDLE = 10
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class _Order:
    """A job, and where and how long to work on it."""

    job: Job
    storage: BaseStorage
    study_name: str
    sampler: BaseSampler
    pruner: BasePruner
    budget: Budget | None
    ends_at: float | None  # by time.time(), which other processes share
    n_workers: int
    giver: dict[str, Any]


class _WorkerKilledError(RuntimeError):
    """A worker's process ended without a word."""


def shared_storage(storage: BaseStorage, given: Any) -> Any:
    """A context with a storage that processes share: the same, or for studies in memory a temporary SQLite file.

    Parameters
    ----------
    storage : optuna.storages.BaseStorage
        From `open_storage`.
    given : object
        What the person gave for it.

    Raises
    ------
    ValueError
        If the storage was made by the person and only this process sees it.
    """
    store = store_of(storage)
    if store.is_shared:
        return nullcontext(storage)
    if not store.lasts and storage is not given:
        return _temporary_storage()
    raise ValueError(
        f"storage={type(storage).__name__}: processes can't share it, so n_jobs must be 1; "
        "give a URL such as 'sqlite:///studies.db', or None for n_jobs > 1"
    )


@contextmanager
def _temporary_storage() -> Iterator[BaseStorage]:
    with (
        tempfile.TemporaryDirectory(prefix="inna-tune-", ignore_cleanup_errors=True) as folder,
        closing(open_store(f"sqlite:///{folder}/studies.db")) as store,
    ):
        yield store.storage


def run_here(job: Job, study: optuna.Study, budget: Budget | None, callbacks: Sequence[Callback]) -> None:
    """Run a job in this process.

    Parameters
    ----------
    job : Job
    study : optuna.Study
        With sampler and pruner.
    budget : Budget or None
        Of time.
    callbacks : sequence of callables (study, trial)

    Raises
    ------
    KeyboardInterrupt, SystemExit
        After a clean end: by Ctrl-C, or SIGTERM.
    """
    with Signals() as signals, Worker(study._storage) as worker:
        runner = TrialRunner(
            job,
            study,
            worker,
            budget=budget,
            stop=lambda: signals.received is not None,
            callbacks=callbacks,
        )
        try:
            runner.run()
        except Stopped:
            signals.check()
            raise
    signals.check()


def run_parallel(
    job: Job,
    study: optuna.Study,
    budget: Budget | None,
    callbacks: Sequence[Callback],
    n_jobs: int | None,
) -> None:
    """Run a job by several workers, until the study has its trials.

    A worker that fails or is killed does not end the others' work, who take up the trials that it had begun; a process that
    is killed is replaced. Callbacks are called here.

    Parameters
    ----------
    job : Job
    study : optuna.Study
        In a storage that processes share, with sampler and pruner.
    budget : Budget or None
        Of time.
    callbacks : sequence of callables (study, trial)
    n_jobs : int or None
        As in joblib, whose ``parallel_config`` holds.

    Raises
    ------
    Exception
        The first error of a worker, where ``error_score="raise"``, or where all of them end again and again.
    KeyboardInterrupt, SystemExit
        After a clean end: by Ctrl-C, or SIGTERM.
    """
    n_workers = joblib.effective_n_jobs(n_jobs)
    watch = _Watch(study, callbacks)
    patience = _Patience(watch, n_workers)
    with Signals() as signals:
        while True:
            # Made in this thread, for which a joblib.parallel_config holds.
            start = _starter(n_jobs, patience)
            errors = _round(job, study, budget, watch, start, n_workers, signals)
            signals.check()
            if job.error_score == "raise":
                for error in errors:
                    if not isinstance(error, _WorkerKilledError):
                        raise error
            if is_stopped(study):
                return
            left = resume_summary(study, job.n_trials)
            if not (left.left_to_do or left.running):
                return
            # Those whose workers met no error ended for want of time.
            if budget is not None and (budget.is_late or not errors):
                return
            if not patience.allows_another():
                raise (
                    errors[-1]
                    if errors
                    else RuntimeError(f"all workers end before their work is done: {left}")
                )


class _Watch:
    """Calls back for every trial that has finished since the last look."""

    def __init__(self, study: optuna.Study, callbacks: Sequence[Callback]) -> None:
        self._study, self._callbacks = study, callbacks
        self._seen: set[int] = {t.number for t in self._finished()}

    def _finished(self) -> list[Any]:
        with storage_errors(self._study._storage):
            return [t for t in self._study.get_trials(deepcopy=False) if t.state.is_finished()]

    @property
    def n_finished(self) -> int:
        return len(self._seen)

    def look(self) -> None:
        for trial in self._finished():
            if trial.number not in self._seen:
                self._seen.add(trial.number)
                call_back(self._callbacks, self._study, trial._trial_id)


class _Patience:
    """Bounds how often workers begin anew while no trial is finished."""

    def __init__(self, watch: _Watch, n_workers: int) -> None:
        self._watch, self._most = watch, _ATTEMPTS * n_workers
        self._failures, self._seen = 0, watch.n_finished

    def allows_another(self) -> bool:
        """Note that a worker has ended too early, and say whether another one may begin."""
        if self._watch.n_finished > self._seen:
            self._failures, self._seen = 0, self._watch.n_finished
        self._failures += 1
        return self._failures < self._most


_Starter = Callable[[_Order], Iterator[Exception | None]]


def _starter(n_jobs: int | None, patience: _Patience) -> _Starter:
    """A function that starts the workers, and yields what became of each as it ends: None, or the error that it met."""
    backend, _ = get_active_backend()
    if isinstance(backend, (LokyBackend, MultiprocessingBackend)):
        return lambda order: _in_processes(order, patience)
    parallel = joblib.Parallel(
        n_jobs=n_jobs, batch_size=1, pre_dispatch="all", return_as="generator_unordered"
    )
    return lambda order: parallel(joblib.delayed(_work)(order) for _ in range(order.n_workers))


def _in_processes(order: _Order, patience: _Patience) -> Iterator[Exception | None]:
    """Work in processes of this host, replacing those that are killed."""
    # NOTE: a pool for each process, since of a pool in which one is killed loky kills the rest.
    share = str(max(1, joblib.cpu_count() // order.n_workers))
    threads = {name: os.environ.get(name, share) for name in _THREADS}
    pools: dict[Future[Exception | None], ProcessPoolExecutor] = {}

    def start() -> None:
        pool = ProcessPoolExecutor(max_workers=1, timeout=_IDLE, env=threads)
        pools[pool.submit(_work_and_end, order)] = pool

    try:
        for _ in range(order.n_workers):
            start()
        while pools:
            for future in wait(pools, return_when=FIRST_COMPLETED).done:
                pools.pop(future).shutdown()
                error = future.exception()
                if not isinstance(error, BrokenProcessPool):
                    yield future.result()
                    continue
                if patience.allows_another():
                    start()
                yield _WorkerKilledError("its process was killed, perhaps for want of memory")
    finally:
        for pool in pools.values():
            pool.shutdown(kill_workers=True)


def _round(
    job: Job,
    study: optuna.Study,
    budget: Budget | None,
    watch: _Watch,
    start: _Starter,
    n_workers: int,
    signals: Signals,
) -> list[Exception]:
    """Let the workers work until all have ended; their errors."""
    errors: list[Exception] = []
    failed = threading.Event()
    thread: threading.Thread | None = None

    def note(error: Exception) -> None:
        errors.append(error)
        logger.warning("a worker ended early: %s: %s", type(error).__name__, error)
        if not isinstance(error, _WorkerKilledError):
            failed.set()

    try:
        # Alive as long as this block lasts: its end tells the workers to end.
        with Worker(study._storage) as giver:
            order = _Order(
                job=job,
                storage=study._storage,
                study_name=study.study_name,
                sampler=study.sampler,
                pruner=study.pruner,
                budget=budget,
                ends_at=None if budget is None else time.time() + budget.left,
                n_workers=n_workers,
                giver=giver.record,
            )

            def work() -> None:
                try:
                    for error in start(order):
                        if error is not None:
                            note(error)
                except Exception as error:
                    note(error)

            # In a thread of its own, since joblib kills its workers where its own thread is interrupted.
            thread = threading.Thread(target=work, name="inna-tune workers", daemon=True)
            thread.start()
            while thread.is_alive():
                thread.join(_LOOK_EVERY)
                watch.look()
                if (
                    signals.received is not None
                    or is_stopped(study)
                    or (failed.is_set() and job.error_score == "raise")
                ):
                    break
    finally:
        if thread is not None:
            thread.join()
    watch.look()
    return errors


def _work(order: _Order) -> Exception | None:
    """What a worker does, wherever joblib has put it; the error that it met."""
    try:
        with Signals() as signals, Worker(order.storage) as worker:
            # Its own, also where workers are threads.
            sampler, pruner = copy.deepcopy((order.sampler, order.pruner))
            sampler.reseed_rng()  # without a seed, each worker has to draw for itself
            study = optuna.load_study(
                study_name=order.study_name, storage=order.storage, sampler=sampler, pruner=pruner
            )
            runner = TrialRunner(
                order.job,
                study,
                worker,
                budget=_budget_of(order),
                stop=either(lambda: signals.received is not None, Abandonment(worker, order.giver)),
            )
            share = max(1, joblib.cpu_count() // order.n_workers)
            with torch_threads(min(torch.get_num_threads(), share)), storage_errors(order.storage):
                runner.run()
    except Stopped:
        logger.info("a worker on %s ended early", store_of(order.storage).words)
    except Exception as error:
        return _sendable(error)
    return None


def _budget_of(order: _Order) -> Budget | None:
    """The order's budget by this process's clock."""
    if order.budget is None or order.ends_at is None:
        return None
    return order.budget.with_left(order.ends_at - time.time())


def _work_and_end(order: _Order) -> Exception | None:
    """Work in a process of one's own, which ends at once where its parent has."""
    parent = os.getppid()
    found = _work(order)
    if os.getppid() != parent:
        os._exit(0)  # loky's own end waits half a minute for a word of the parent
    return found


def _sendable(error: Exception) -> Exception:
    """An error that survives the way to another process, and says where it was raised."""
    text = "".join(traceback.format_exception(error))
    found: object = None
    # Whatever an error's own pickling raises, the error itself is still told.
    with suppress(Exception):
        found = pickle.loads(pickle.dumps(error))
    if not isinstance(found, Exception):
        found = RuntimeError(f"{type(error).__name__}: {error}")
    found.add_note(f"In the worker:\n{text}")
    return found
