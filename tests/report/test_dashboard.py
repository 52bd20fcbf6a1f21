"""The dashboard with a study of ours in Chromium, its reports beside it, and who may ask for them."""

import http.client
import json
import signal
import sqlite3
import threading
from contextlib import contextmanager

import optuna
import pytest
import sqlalchemy
from optuna_dashboard import save_note
from sklearn.datasets import load_iris

from inna_tune import InnaClassifier, InnaSearchCV
from inna_tune.report import serving
from inna_tune.report.serving import DashboardMissingError, DashboardServer, is_loopback
from inna_tune.store import waiting
from inna_tune.store.errors import StorageError
from inna_tune.visible import is_unseen, visible
from tests.browser import Browser
from tests.report.test_report import WILD, hostile_study
from tests.test_cli import MAIN, environment, run
from tests.warm import Program


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    url = f"sqlite:///{tmp_path_factory.mktemp('dashboard')}/studies.db"
    X, y = load_iris(return_X_y=True, as_frame=True)
    net = InnaClassifier(hidden_layer_sizes=(8,), n_members=1, max_epochs=16)
    InnaSearchCV(net, n_trials=3, storage=url, study_name="iris & <b>co</b>", random_state=0).fit(X, y)
    return url


@contextmanager
def serving_in_a_thread(storage):
    with DashboardServer(storage, port=0) as server:
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            yield server
        finally:
            server.stop()
            thread.join()


@pytest.fixture(scope="module")
def server(storage):
    with serving_in_a_thread(storage) as started:
        yield started


@pytest.fixture(scope="module")
def browser():
    with Browser() as started:
        yield started


def ask(server, path, method="GET", **headers):
    connection = http.client.HTTPConnection(server.address.removeprefix("http://"))
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer, body


# ---------------------------------------------------------------------- in the browser


def test_the_dashboard_shows_natural_values_reports_and_our_attributes(storage, server, browser):
    study = optuna.load_study(study_name="iris & <b>co</b>", storage=storage)
    trial = study.trials[0]
    browser.open(f"{server.address}/dashboard/studies/1/trials")
    browser.wait_for("document.body.innerText.includes('Intermediate Values')")
    text = browser.text()
    for name, value in trial.params.items():
        # A browser writes 1e-5 as JavaScript does: the first digits are enough to tell a natural value.
        assert f"{name} {value}" in text or f"{name} {str(value)[:6]}" in text
    for step, value in trial.intermediate_values.items():
        assert f"{step} {str(value)[:8]}" in text
    assert f"seed {trial.user_attrs['seed']}" in text
    assert f"epochs {trial.user_attrs['epochs']}" in text
    assert browser.errors == []
    assert all(r.startswith((server.address, "data:", "blob:")) for r in browser.requests)


def test_dashboard_and_report_link_to_each_other(server, browser):
    browser.open(f"{server.address}/dashboard/studies/1/trials")
    browser.wait_for("document.body.innerText.includes('Intermediate Values')")
    browser.evaluate("document.querySelector('a[href=\"/reports/here\"]').click()")
    browser.wait_for("location.pathname == '/reports/1' && document.readyState == 'complete'")
    assert "iris & <b>co</b>" in browser.text()
    assert browser.evaluate("document.querySelectorAll('svg.plot').length") > 5
    browser.evaluate("[...document.links].find(a => a.href.includes('/dashboard/')).click()")
    browser.wait_for("location.pathname.startsWith('/dashboard/studies/1')")
    browser.wait_for("document.body.innerText.includes('inna_tune:fingerprint')")


def test_the_list_of_reports(server, browser):
    browser.open(f"{server.address}/reports", width=390)
    assert "iris & <b>co</b>" in browser.text()
    assert browser.errors == []


def test_what_strangers_wrote_is_text_in_the_dashboard_too(tmp_path, browser):
    url = f"sqlite:///{tmp_path}/hostile.db"
    hostile = hostile_study()
    optuna.create_study(study_name=WILD, storage=url).add_trials(hostile.trials[:3])
    study = optuna.load_study(study_name=WILD, storage=url)
    study.set_user_attr(WILD, WILD)
    save_note(study, f"<b>bold</b>\n\n{WILD}\n\n[link](javascript:window.hacked=1)")
    with serving_in_a_thread(url) as server:
        for page, shown in (("trials", "Intermediate Values"), ("note", "bold")):
            browser.open(f"{server.address}/dashboard/studies/1/{page}")
            browser.wait_for(f"document.body.innerText.includes({shown!r})")
            assert WILD in browser.text()
            assert browser.evaluate("window.hacked") is None
            assert (
                browser.evaluate("document.querySelectorAll('img[onerror], #dashboard script, b').length")
                == 0
            )
            assert not browser.evaluate("[...document.links].some(a => a.protocol == 'javascript:')")
            assert browser.errors == []


TURNING = "safe \u202egpj.exe\x1b[31m\u2066 \U000e0041\x9b"


def test_no_name_or_value_turns_the_page_over(tmp_path):
    """Studies of a stranger's database stay readable, with what would not be seen written out."""
    url = f"sqlite:///{tmp_path}/turning.db"
    study = optuna.create_study(study_name=TURNING, storage=url)
    study.set_user_attr(TURNING, {TURNING: [TURNING]})
    trial = study.ask({TURNING: optuna.distributions.CategoricalDistribution([TURNING, "b"])})
    trial.set_user_attr(TURNING, TURNING)
    study.tell(trial, 1.0)
    save_note(study, f"# note\n\n{TURNING}")
    with serving_in_a_thread(url) as server:
        for path in ("/api/studies", "/api/studies/1?after=0"):
            answer, body = ask(server, path)
            assert answer.status == 200
            assert int(answer.headers["Content-Length"]) == len(body.encode())
            texts = list(texts_in(json.loads(body)))
            assert visible(TURNING) in texts
            assert not [text for text in texts if any(is_unseen(c, lines=True) for c in text)]


def texts_in(tree):
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, (list, dict)):
        for part in [*tree, *tree.values()] if isinstance(tree, dict) else tree:
            yield from texts_in(part)


# ---------------------------------------------------------------------- who may ask


@pytest.mark.parametrize("path", ["/dashboard/studies/1", "/api/studies", "/reports", "/reports/7"])
def test_no_page_stands_in_a_strangers_frame_and_reports_run_nothing(server, path):
    headers = ask(server, path)[0].headers
    own = headers.get_all("Content-Security-Policy")[-1]
    assert "frame-ancestors 'none'" in own
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert own.startswith("default-src 'none'; ") == path.startswith("/reports")


def test_only_this_server_s_own_pages_get_an_answer(server):
    host = server.address.removeprefix("http://")
    port = host.split(":")[1]
    assert ask(server, "/api/studies")[0].status == 200
    assert ask(server, "/api/studies", Host=f"localhost:{port}")[0].status == 200
    assert ask(server, "/api/studies", Host=host, Origin=server.address)[0].status == 200
    for headers in (
        {"Host": f"evil.example:{port}"},
        {"Host": "127.0.0.1:1"},
        {"Host": host, "Origin": "http://evil.example"},
        {"Host": host, "Origin": "null"},
    ):
        for method, path in (("GET", "/api/studies"), ("DELETE", "/api/studies/1"), ("GET", "/reports/1")):
            answer, body = ask(server, path, method, **headers)
            assert answer.status == 403
            assert "iris" not in body
    assert ask(server, "/api/studies")[1].count("study_name") == 1


def test_reports_that_are_not_there(server):
    assert ask(server, "/reports/7")[0].status == 404
    assert ask(server, "/reports/1/../../etc/passwd")[0].status == 404
    assert ask(server, "/reports/here")[0].headers["Location"] == "/reports"
    answer, _ = ask(server, "/reports/here", Referer=f"{server.address}/dashboard/studies/1/trials?numbers=0")
    assert (answer.status, answer.headers["Location"]) == (302, "/reports/1")
    assert ask(server, "/reportsomething")[0].status == 404


def test_a_study_that_has_no_report_says_why(tmp_path):
    url = f"sqlite:///{tmp_path}/many.db"
    optuna.create_study(storage=url, directions=["minimize", "maximize"])
    with serving_in_a_thread(url) as server:
        answer, body = ask(server, "/reports/1")
        assert answer.status == 500
        assert "2 objectives" in body


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
        ("my.machine", False),
    ],
)
def test_which_addresses_are_this_machine_s_own(host, own):
    assert is_loopback(host) == own


def test_what_cannot_be_served_is_said(storage, tmp_path, monkeypatch):
    with pytest.raises(StorageError, match="no file"):
        DashboardServer(f"sqlite:///{tmp_path}/none.db", port=0)
    with DashboardServer(storage, port=0) as first:
        port = int(first.address.rsplit(":", 1)[1])
        with pytest.raises(OSError, match=f"port {port}: .*--port"):
            DashboardServer(storage, port=port)
    monkeypatch.setattr(serving, "find_spec", lambda name: None)
    with pytest.raises(DashboardMissingError, match=r"pip install 'inna-tune\[dashboard\]'"):
        DashboardServer(storage, port=0)


@pytest.mark.parametrize("number", ["99", "0", "9" * 18, "9" * 40])
@pytest.mark.parametrize(
    "path",
    [
        *("/reports/{}", "/reports/{}/", "/dashboard/studies/{}", "/dashboard/studies/{}/trials", "/csv/{}"),
        *("/api/studies/{}", "/api/studies/{}/param_importances", "/api/studies/{}/plot/contour"),
        *(
            "/api/studies/{}/plot/edf",
            "/api/studies/{}/nothing",
            "/reports/x{}",
            "/nothing/{}",
            "/static/{}.js",
        ),
    ],
)
def test_a_page_that_is_not_there_is_a_404(server, capfd, path, number):
    answer, body = ask(server, path.format(number))
    assert answer.status == 404
    assert "Traceback" not in body + capfd.readouterr().err


# ---------------------------------------------------------------------- the command


@pytest.mark.parametrize(
    "path",
    ["/api/studies", "/api/studies/1", "/csv/1", "/dashboard/studies/1", "/reports", "/reports/1"],
)
def test_a_database_that_is_away_is_told_of_at_once(storage, path, monkeypatch):
    def away(*arguments):
        error = sqlite3.OperationalError("the file is away")
        error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
        raise error

    monkeypatch.setattr(waiting, "_FIRST", 1000.0)
    with serving_in_a_thread(storage) as started:
        sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", away)
        try:
            answer, body = ask(started, path)
        finally:
            sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", away)
        assert answer.status == 503
        assert "the file is away" in body
        assert ask(started, path)[0].status == 200


def test_ctrl_c_ends_the_command(storage, tmp_path):
    words = ("dashboard", "--storage", storage, "--port", "0", "--json")
    with Program(MAIN, *words, cwd=tmp_path, env=environment()) as process:
        said = "".join(iter(process.stdout.readline, "}\n")) + "}"
        address = json.loads(said)["reports"]
        connection = http.client.HTTPConnection(address.split("/")[2])
        connection.request("GET", "/reports")
        assert connection.getresponse().status == 200  # and the connection stays open
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate()
    assert process.returncode == 0
    assert complaints == "Dashboard ended.\n"
    connection.close()


def test_another_address_is_warned_of(storage, tmp_path, monkeypatch):
    class Server:
        address = "http://0.0.0.0:8080"

        def __init__(self, storage, host, port):
            self.asked = (host, port)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def run(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(serving, "DashboardServer", Server)
    warned = run(tmp_path, "dashboard", "--storage", storage, "--host", "0.0.0.0").stderr
    assert "can read, change and delete these studies" in warned
    assert "Warning" not in run(tmp_path, "dashboard", "--storage", storage).stderr


def test_wrong_input_is_one_line(tmp_path):
    assert "no file" in run(tmp_path, "dashboard", code=2).stderr
