"""Several workers on one study: processes that joblib places, here or on a cluster, each with the storage open."""

import copy
import multiprocessing
import os
import pickle
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import joblib
import optuna
import torch
from joblib.externals.loky import ProcessPoolExecutor
from joblib.externals.loky.backend.reduction import dumps
from joblib.externals.loky.process_executor import BrokenProcessPool
from joblib.parallel import LokyBackend, MultiprocessingBackend, get_active_backend
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from inna_tune.engine.threads import torch_threads
from inna_tune.files import scratch_folder
from inna_tune.store.errors import UnreachableError
from inna_tune.store.opening import open_store, storage_errors, store_of
from inna_tune.store.waiting import waiting_until
from inna_tune.store.workers import Worker, resume_summary
from inna_tune.study.budget import Budget
from inna_tune.study.callbacks import Callback, call_back, is_stopped
from inna_tune.study.job import StudyJob
from inna_tune.study.running import SuspectError, TrialRunner
from inna_tune.study.signals import Abandonment, Signals, Stopped
from inna_tune.visible import get_logger

logger = get_logger(__name__)

_LOOK_EVERY = 0.1  # seconds between looks for finished trials and signals
# Times a worker may end before its work is done, for each of them, and without a trial finished in between.
_ATTEMPTS = 3
# Seconds that a process without work lives on: one whose parent was killed has to see for itself that none will come.
_IDLE = 10
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class _Order:
    """A job, and where and how long to work on it."""

    job: StudyJob
    study: optuna.Study
    budget: Budget | None
    n_workers: int
    giver: dict[str, Any]

    @property
    def share(self) -> int:
        """Of the cores where this is asked, those of one worker."""
        return int(max(1, joblib.cpu_count() // self.n_workers))


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
        scratch_folder(tempfile.gettempdir()) as folder,
        closing(open_store(f"sqlite:///{folder}/studies.db")) as store,
    ):
        yield store.storage


def run_here(
    job: StudyJob, study: optuna.Study, budget: Budget | None, callbacks: Sequence[Callback]
) -> None:
    """Run a job in this process; after a signal, end cleanly and raise what it stands for.

    Where a trial may have killed the processes that trained it, what is left is run in a process of its own: if that one dies
    while this one lives, nobody has killed both from outside.
    """
    try:
        # A daemon may start no processes.
        may_start = not multiprocessing.current_process().daemon
        _run_here(job, study, budget, callbacks, hands_over=may_start and store_of(study).lasts)
    except SuspectError:
        if _can_be_sent(job, study, budget):
            logger.info("a trial may have killed its process: it is tried in one of its own")
            run_parallel(job, study, budget, callbacks, 1, on_this_host=True)
        else:
            _run_here(job, study, budget, callbacks, hands_over=False)


def _run_here(
    job: StudyJob,
    study: optuna.Study,
    budget: Budget | None,
    callbacks: Sequence[Callback],
    *,
    hands_over: bool,
) -> None:
    with Signals() as signals, Worker(study._storage) as worker:
        runner = TrialRunner(
            job,
            study,
            worker,
            budget=budget,
            stop=lambda: signals.received is not None,
            callbacks=callbacks,
            hands_over=hands_over,
        )
        try:
            runner.run()
        except Stopped:
            signals.check()
            raise
    signals.check()


def _can_be_sent(*things: object) -> bool:
    """Whether another process can have them."""
    try:
        dumps(things)
    except Exception as error:  # whatever the pickling of a stranger's class raises
        logger.debug("no other process can run this job: %s: %s", type(error).__name__, error)
        return False
    return True


def run_parallel(
    job: StudyJob,
    study: optuna.Study,
    budget: Budget | None,
    callbacks: Sequence[Callback],
    n_jobs: int | None,
    *,
    on_this_host: bool = False,
) -> None:
    """Run a job by several workers, until the study has its trials.

    A worker that fails or is killed does not end the others' work, who take up the trials that it had begun; a process that
    is killed is replaced. Callbacks are called here. The storage is one that processes share; for ``n_jobs`` joblib's
    ``parallel_config`` holds, unless they are to be processes ``on_this_host``.

    Raises
    ------
    Exception
        The first error of a worker, where ``error_score="raise"``, or where all of them end again and again.
    UnreachableError
        If the database went away, and was waited for in vain.
    KeyboardInterrupt, SystemExit
        After a clean end: by Ctrl-C, or by SIGTERM or SIGHUP.
    """
    crew = _Crew(job, study, budget, callbacks, n_jobs, on_this_host=on_this_host)
    with Signals() as signals, waiting_until(lambda: signals.received is not None):
        while True:
            try:
                errors = crew.work(signals)
            except UnreachableError:
                signals.check()  # or else it would have been waited for
                raise
            signals.check()
            for error in errors:
                if isinstance(error, UnreachableError):
                    raise error  # others would wait in vain as well
            if job.error_score == "raise":
                for error in errors:
                    if not isinstance(error, _WorkerKilledError):
                        raise error
            left = resume_summary(study, job.n_trials)
            if is_stopped(study) or not (left.left_to_do or left.running):
                return
            # Those whose workers met no error ended for want of time.
            if budget is not None and (budget.is_late or not errors):
                return
            if not crew.may_begin_another():
                message = f"all workers end before their work is done: {left}"
                raise errors[-1] if errors else RuntimeError(message)


class _Crew:
    """The workers of a study, seen from the process that gives them their order."""

    def __init__(
        self,
        job: StudyJob,
        study: optuna.Study,
        budget: Budget | None,
        callbacks: Sequence[Callback],
        n_jobs: int | None,
        *,
        on_this_host: bool,
    ) -> None:
        self.job, self.study, self.budget = job, study, budget
        self._callbacks, self._n_jobs, self.n_workers = callbacks, n_jobs, joblib.effective_n_jobs(n_jobs)
        self._on_this_host = on_this_host
        self._told = {t.number for t in self._finished()}
        self._failures, self._told_by_then = 0, len(self._told)

    def _finished(self) -> list[FrozenTrial]:
        with storage_errors(self.study._storage):
            return [t for t in self.study.get_trials(deepcopy=False) if t.state.is_finished()]

    def _look(self) -> None:
        """Call back for every trial that has finished since the last look."""
        for trial in self._finished():
            if trial.number not in self._told:
                self._told.add(trial.number)
                call_back(self._callbacks, self.study, trial._trial_id)

    def may_begin_another(self) -> bool:
        """Note that a worker has ended too early, and say whether another one may begin: not again and again for nothing."""
        if len(self._told) > self._told_by_then:
            self._failures, self._told_by_then = 0, len(self._told)
        self._failures += 1
        return bool(self._failures < _ATTEMPTS * self.n_workers)

    def work(self, signals: Signals) -> list[Exception]:
        """Let the workers work until all have ended; their errors."""
        errors: list[Exception] = []
        failed = threading.Event()
        thread: threading.Thread | None = None
        # Asked in this thread, for which a joblib.parallel_config holds.
        backend, _ = get_active_backend()
        start = self._in_processes
        if not (self._on_this_host or isinstance(backend, (LokyBackend, MultiprocessingBackend))):
            parallel = joblib.Parallel(
                n_jobs=self._n_jobs, batch_size=1, pre_dispatch="all", return_as="generator_unordered"
            )

            def start(order: _Order) -> Iterator[Exception | None]:
                yield from parallel(joblib.delayed(_work)(order) for _ in range(self.n_workers))

        def note(error: Exception) -> None:
            errors.append(error)
            logger.warning("a worker ended early: %s: %s", type(error).__name__, error)
            if not isinstance(error, _WorkerKilledError):
                failed.set()

        try:
            # Alive as long as this block lasts: its end tells the workers to end.
            with Worker(self.study._storage) as giver:
                order = _Order(self.job, self.study, self.budget, self.n_workers, giver.record)

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
                    self._look()
                    may_raise = failed.is_set() and self.job.error_score == "raise"
                    if signals.received is not None or is_stopped(self.study) or may_raise:
                        break
        finally:
            if thread is not None:
                thread.join()
        self._look()
        return errors

    def _in_processes(self, order: _Order) -> Iterator[Exception | None]:
        """Work in processes of this host, replacing those that are killed; what became of each as it ends."""
        # NOTE: a pool for each process, since of a pool in which one is killed loky kills the rest.
        share = str(order.share)
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
                    if self.may_begin_another():
                        start()
                    yield _WorkerKilledError("its process was killed, perhaps for want of memory")
        finally:
            for pool in pools.values():
                pool.shutdown(kill_workers=True)


def _work(order: _Order) -> Exception | None:
    """What a worker does, wherever joblib has put it; the error that it met."""
    name, storage = order.study.study_name, order.study._storage
    try:
        with Signals() as signals, Worker(storage, order.giver) as worker:
            # Its own, also where workers are threads.
            sampler, pruner, budget = copy.deepcopy((order.study.sampler, order.study.pruner, order.budget))
            sampler.reseed_rng()  # without a seed, each worker has to draw for itself
            study = optuna.load_study(study_name=name, storage=storage, sampler=sampler, pruner=pruner)
            is_abandoned = Abandonment(worker, order.giver)
            runner = TrialRunner(
                order.job,
                study,
                worker,
                budget=budget,
                stop=lambda: signals.received is not None or is_abandoned(),
            )
            with torch_threads(min(torch.get_num_threads(), order.share)):
                runner.run()
    except Stopped:
        logger.info("a worker on %s ended early", store_of(storage).words)
    except Exception as error:
        return _sendable(error)
    return None


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
