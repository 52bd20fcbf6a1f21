"""The same promises on a database server: a real PostgreSQL, started for these tests on loopback."""

import os
import pwd
import random
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.storages import BaseStorage
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import TrialState

from inna_tune.store import sql, waiting, workers
from inna_tune.store.asking import ask, tell
from inna_tune.store.errors import StorageError
from inna_tune.store.opening import create_study, gathered, open_storage, store_of
from inna_tune.store.store import OWNER
from inna_tune.store.workers import Worker, resume_summary
from tests.store.crew import Crew

PASSWORD = "S3cr3t{p@ss}%/"


def needed(found: Any, what: str) -> Any:
    """Skip where a machine lacks something, but fail where INNA_TUNE_POSTGRES=required, as .ci/run says."""
    if not found:
        required = os.environ.get("INNA_TUNE_POSTGRES") == "required"
        (pytest.fail if required else pytest.skip)(f"needs {what}")
    return found


def program(name: str) -> str:
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(installed[-1]) if installed else None)
    return str(needed(found, f"PostgreSQL's {name}"))


def unprivileged() -> pwd.struct_passwd:
    """Return the user that Debian's package makes, or the one that owns nothing."""
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise AssertionError("a superuser runs the tests, and there is no user to run PostgreSQL as")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Start a server as an unprivileged user; return the URL of its superuser."""
    try:
        import psycopg
    except ImportError:
        psycopg = None  # type: ignore[assignment]
    needed(psycopg, "psycopg")
    initdb, pg_ctl = program("initdb"), program("pg_ctl")
    folder = Path(tempfile.mkdtemp(prefix="inna-tune-"))
    entry = pwd.getpwuid(os.getuid())
    other: dict[str, Any] = {}
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        entry = unprivileged()
        other = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": ()}
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(*command: str) -> None:
        subprocess.run(command, **other, cwd=folder, check=True, stdout=subprocess.DEVNULL)

    (folder / "password").write_text(PASSWORD)
    data, unsafe = str(folder / "data"), "-c fsync=off -c synchronous_commit=off -c full_page_writes=off"
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 {unsafe}"
    name = entry.pw_name
    run(initdb, "-D", data, "-A", "scram-sha-256", "--pwfile", "password", "-U", name, "--no-sync")
    try:
        run(pg_ctl, "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
        yield sqlalchemy.URL.create(
            "postgresql+psycopg", name, PASSWORD, "127.0.0.1", port, "postgres"
        ).render_as_string(hide_password=False)
    finally:
        run(pg_ctl, "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.fixture
def url(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Return the URL of an empty database, with a folder of locks of its own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    engine = sqlalchemy.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        name = f"test_{len(connection.exec_driver_sql('SELECT 1 FROM pg_database').all())}"
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return sqlalchemy.make_url(server).set(database=name).render_as_string(hide_password=False)


@pytest.fixture
def storage(url: str) -> Iterator[BaseStorage]:
    storage = open_storage(url)
    yield storage
    storage._backend.engine.dispose()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def shared(server: str) -> Iterator[BaseStorage]:
    storage = open_storage(server)
    yield storage
    storage._backend.engine.dispose()  # type: ignore[attr-defined]


class TestContract(StorageTestCase):
    @pytest.fixture
    def storage(self, shared: BaseStorage) -> Iterator[BaseStorage]:
        """One database for all, since the tables take longer to make than to empty."""
        yield shared
        for study in shared.get_all_studies():
            shared.delete_study(study._study_id)


def states(study: optuna.Study) -> Counter[str]:
    return Counter(trial.state.name for trial in study.get_trials(deepcopy=False))


def test_five_processes_create_one_study_survive_kills_and_run_it_exactly(url: str) -> None:
    n_trials, told = 20, Counter[str]()
    with Crew(url, n_trials, 5) as crew:
        crew.start()
        told.update(line.split()[1] for line in islice(crew.output, 16) if line.startswith("told"))
        for pid in crew.pids:
            crew.kill(pid)
        told.update(line.split()[1] for line in crew.output if line.startswith("told"))
    with Crew(url, n_trials, 5) as crew:
        crew.start()
        told.update(line.split()[1] for line in crew.finish() if line.startswith("told"))
    study = optuna.load_study(study_name="shared", storage=open_storage(url))
    assert states(study) == {"COMPLETE": n_trials}
    assert [trial.number for trial in study.trials] == list(range(n_trials))
    assert all(trial.value == trial.params["x"] for trial in study.trials)
    assert set(told.values()) == {1}


def test_a_killed_workers_trial_is_taken_up_at_once_on_its_host(url: str, storage: BaseStorage) -> None:
    with Crew(url, 1, step=True) as crew:
        crew.start()
        number, value = crew.read("asked")
        study = create_study(storage, "shared", "minimize", resume=True)
        with Worker(storage) as mine:
            assert ask(study, mine, 1) is None
            crew.kill()
            assert crew.output.readline() == ""
            trial = ask(study, mine, 1)
            assert trial is not None
            assert (trial.number, trial.params) == (int(number), {"x": float(value)})


def test_a_worker_of_another_host_lives_as_long_as_its_lease(
    storage: BaseStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = create_study(storage, "shared", "minimize", resume=False)
    with Worker(storage) as there:
        trial = ask(study, there, 1)
        assert trial is not None
        # As another host sees it: another folder of locks, and none of this process's memory.
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "elsewhere"))
        monkeypatch.setattr(workers, "_living", set())
        with Worker(storage) as here:
            assert here.is_alive(there.record) is None
            assert ask(study, here, 1) is None
            assert resume_summary(study, 1).running == 1
            shift_heartbeats(storage, sql.LEASE + timedelta(seconds=5))
            assert store_of(storage).beat({trial._trial_id, 999}) == {trial._trial_id}
            assert ask(study, here, 1) is None, "a beat renews the lease"
            shift_heartbeats(storage, sql.LEASE + timedelta(seconds=5))
            again = ask(study, here, 1)
            assert again is not None
            assert again.number == trial.number
            assert storage.get_trial(trial._trial_id).system_attrs[OWNER]["attempt"] == 2
            assert not tell(study, there, trial, 1.0), "it isn't its trial any more"
            assert tell(study, here, again, 2.0)
            assert store_of(storage).beat({trial._trial_id}) == set()
    assert [each.value for each in study.trials] == [2.0]


def shift_heartbeats(storage: BaseStorage, by: timedelta) -> None:
    with storage._backend.engine.begin() as connection:  # type: ignore[attr-defined]
        seconds = by.total_seconds()
        connection.exec_driver_sql(
            f"UPDATE trial_heartbeats SET heartbeat = heartbeat - make_interval(secs => {seconds})"
        )


def test_a_worker_renews_its_lease_by_itself(storage: BaseStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "BEAT", 0.01)
    study = create_study(storage, "shared", "minimize", resume=False)
    query = "SELECT heartbeat FROM trial_heartbeats"
    with Worker(storage) as worker:
        trial = ask(study, worker, 1)
        assert trial is not None
        heartbeats = set()
        while len(heartbeats) < 2:
            with storage._backend.engine.connect() as connection:  # type: ignore[attr-defined]
                heartbeats.add(connection.exec_driver_sql(query).scalar_one())
        assert tell(study, worker, trial, 1.0)


def test_waiting_trials_are_claimed_once(url: str, storage: BaseStorage) -> None:
    study = create_study(storage, "shared", "minimize", resume=True)
    for number in range(16):
        study.enqueue_trial({"x": number / 16})
    with Crew(url, 16, 4) as crew:
        crew.start()
        crew.finish()
    assert states(study) == {"COMPLETE": 16}
    assert sorted(trial.params["x"] for trial in study.trials) == [number / 16 for number in range(16)]


def test_errors_show_no_password(server: str) -> None:
    url = sqlalchemy.make_url(server)
    for broken in (url.set(password=PASSWORD + "x"), url.set(database="missing"), url.set(port=1)):
        with pytest.raises(StorageError) as raised:
            open_storage(broken.render_as_string(hide_password=False))
        message = str(raised.value)
        assert "S3cr3t" not in message
        assert "\n" not in message
        assert "127.0.0.1" in message


def test_a_finished_trial_is_not_told_twice(storage: BaseStorage) -> None:
    study = create_study(storage, "shared", "minimize", resume=False)
    with Worker(storage) as worker:
        trial = ask(study, worker, 1)
        assert trial is not None
        assert tell(study, worker, trial, 1.0)
        with pytest.raises(ValueError, match="COMPLETE"):
            tell(study, worker, trial, 2.0, TrialState.COMPLETE)
    assert study.best_value == 1.0


def in_zone(url: str, zone: str) -> str:
    return (
        sqlalchemy.make_url(url).update_query_dict({"options": f"-c timezone={zone}"}).render_as_string(False)
    )


@pytest.mark.parametrize(
    ("here", "there"), [("Asia/Tokyo", "America/New_York"), ("America/New_York", "Asia/Tokyo")]
)
def test_leases_are_the_same_in_every_time_zone(
    url: str, here: str, there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = open_storage(in_zone(url, here)), open_storage(in_zone(url, there))
    study = create_study(one, "shared", "minimize", resume=False)
    with Worker(one) as owner:
        trial = ask(study, owner, 1)
        assert trial is not None
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "elsewhere"))
        monkeypatch.setattr(workers, "_living", set())
        elsewhere = optuna.load_study(study_name="shared", storage=other)
        with Worker(other) as watcher:
            assert ask(elsewhere, watcher, 1) is None, "one that lives is not robbed"
            assert store_of(one).beat({trial._trial_id}) == {trial._trial_id}
            assert ask(elsewhere, watcher, 1) is None
            shift_heartbeats(one, sql.LEASE + timedelta(seconds=5))
            again = ask(elsewhere, watcher, 1)
            assert again is not None, "what a dead one left is not kept for hours"
            assert again.number == trial.number
    for storage in (one, other):
        storage._backend.engine.dispose()  # type: ignore[attr-defined]


def test_whoever_could_not_reach_the_server_takes_no_lease_for_over(
    storage: BaseStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = create_study(storage, "shared", "minimize", resume=False)
    with Worker(storage) as there:
        assert ask(study, there, 1) is not None
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "elsewhere"))
        monkeypatch.setattr(workers, "_living", set())
        shift_heartbeats(storage, sql.LEASE + timedelta(seconds=5))
        with Worker(storage) as here:
            here._cut_off = time.monotonic()
            assert ask(study, here, 1) is None
            here._cut_off -= 3 * workers.BEAT
            assert ask(study, here, 1) is not None


class Proxy:
    """Between clients and a server: breaks every connection when told to, and takes none until told otherwise."""

    def __init__(self, port: int) -> None:
        self._server, self._port = socket.create_server(("127.0.0.1", 0)), port
        self.port = self._server.getsockname()[1]
        self._open = set[socket.socket]()
        self.is_away, self.refused = False, threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            if self.is_away:
                client.close()
                self.refused.set()
                continue
            server = socket.create_connection(("127.0.0.1", self._port))
            self._open |= {client, server}
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while content := one.recv(65536):
                other.sendall(content)
        for each in (one, other):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def go(self) -> None:
        """Be away from now on."""
        self.refused.clear()
        self.is_away = True
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def come_back(self) -> None:
        self.is_away = False

    def close(self) -> None:
        self._server.close()
        self.go()


@pytest.fixture
def proxy(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setattr(waiting, "_FIRST", 0.01)
    proxy = Proxy(int(sqlalchemy.make_url(url).port or 0))
    yield proxy
    proxy.close()


@pytest.mark.parametrize("seed", range(1))
def test_a_server_that_goes_away_again_and_again_costs_nothing(url: str, proxy: Proxy, seed: int) -> None:
    """At random statements of trials that are asked for, reported and told, each of which is done once."""
    storage = open_storage(sqlalchemy.make_url(url).set(port=proxy.port).render_as_string(False))
    draw, gone = random.Random(seed), Counter[str]()
    doing = ""

    def away(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        if draw.random() < 0.08:
            gone[doing] += 1
            proxy.go()
            threading.Thread(target=lambda: (proxy.refused.wait(5), proxy.come_back())).start()

    engine = storage._backend.engine  # type: ignore[attr-defined]
    sqlalchemy.event.listen(engine, draw.choice(["before_cursor_execute", "after_cursor_execute"]), away)
    study = create_study(storage, "shared", "minimize", resume=True)
    with Worker(storage) as worker:
        for number in range(6):
            doing = "ask"
            trial = ask(study, worker, 6)
            assert trial is not None
            assert trial.number == number
            with gathered(study):
                trial.suggest_float("x", 0, 1)
            doing = "report"
            trial.report(0.5, 1)
            doing = "tell"
            assert tell(study, worker, trial, float(number), notes={"a": number})
        assert ask(study, worker, 6) is None
    assert set(gone) >= {"ask", "tell"}
    engine.dispose()
    plain = optuna.load_study(study_name="shared", storage=open_storage(url))
    assert states(plain) == {"COMPLETE": 6}
    assert [(t.value, t.user_attrs["a"], t.intermediate_values) for t in plain.trials] == [
        (float(n), n, {1: 0.5}) for n in range(6)
    ]


@pytest.mark.parametrize("at", [1, 3, 9])
def test_a_server_that_goes_away_while_it_is_opened_is_waited_for(url: str, proxy: Proxy, at: int) -> None:
    said = list[str]()

    def away(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        said.append(statement)
        if len(said) == at:
            proxy.go()
            threading.Thread(target=lambda: (proxy.refused.wait(5), proxy.come_back())).start()

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", away)
    try:
        storage = open_storage(sqlalchemy.make_url(url).set(port=proxy.port).render_as_string(False))
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", away)
    assert len(said) > at
    assert states(create_study(storage, "s", "minimize", resume=True)) == {}
    storage._backend.engine.dispose()  # type: ignore[attr-defined]


def test_an_answer_that_is_lost_is_no_trial_too_many(url: str, proxy: Proxy) -> None:
    """The connection breaks after the commit, before the worker hears of it."""
    storage = open_storage(sqlalchemy.make_url(url).set(port=proxy.port).render_as_string(False))
    study = create_study(storage, "shared", "minimize", resume=True)
    engine = storage._backend.engine  # type: ignore[attr-defined]
    dialect_commit, lost = engine.dialect.do_commit, list[str]()

    def commit(connection: Any) -> None:
        dialect_commit(connection)
        if not lost or lost[-1] != doing:
            lost.append(doing)
            proxy.go()
            proxy.come_back()
            raise psycopg.OperationalError("the connection is lost")

    import psycopg

    doing = "ask"
    with Worker(storage) as worker:
        engine.dialect.do_commit = commit
        trial = ask(study, worker, 2)
        assert trial is not None
        doing = "tell"
        told = tell(study, worker, trial, 1.0)
        engine.dialect.do_commit = dialect_commit
        assert told
        assert lost == ["ask", "tell"]
    assert states(study) == {"COMPLETE": 1}
    engine.dispose()
