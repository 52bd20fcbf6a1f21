"""Optuna's dashboard for our studies, with their reports beside it, served to this machine alone."""

import html
import ipaddress
import re
import socket
import threading
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from socketserver import ThreadingMixIn
from types import TracebackType
from typing import Any, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import jinja2
import optuna

from inna_tune.report.page import environment, render_report
from inna_tune.store.errors import DATABASE_ERRORS, UnreachableError
from inna_tune.store.opening import open_storage, storage_errors
from inna_tune.store.waiting import at_once, waiting_until
from inna_tune.visible import get_logger, shown_by_json

HOST, PORT = "127.0.0.1", 8080

logger = get_logger(__name__)

_LINK = (
    '<a href="/reports/here" style="position:fixed;right:1rem;bottom:1rem;z-index:2000;padding:.45rem .8rem;'
    "border-radius:.5rem;background:#0072b2;color:#fff;font:600 .9rem system-ui,sans-serif;text-decoration:none"
    '">Report of inna-tune</a>'
)
_STUDY = re.compile(r"/dashboard/studies/(\d+)(?:/|$)")
_REPORT = re.compile(r"/reports/(\d+)/?")
_OF_STUDY = re.compile(r"/(?:api/studies|csv|dashboard/studies|reports)/(\d+)(?:/|$)")
_MOST_DIGITS = 18  # of a number that a database can have

# Beside the policy that the dashboard has for itself (no scripts but its own, no pictures of other servers): nothing stands in
# the frame of a page on the web, whose visitor would press the dashboard's buttons unawares. A report loads and runs nothing.
_OF_ALL = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_OF_REPORTS = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; {_OF_ALL}"

# What WSGI (PEP 3333) calls environ, start_response and an application.
_Environ = dict[str, Any]
_Start = Callable[..., Any]
_Headers = list[tuple[str, str]]
_Application = Callable[[_Environ, _Start], Iterable[bytes]]


class DashboardMissingError(ImportError):
    """optuna-dashboard is not installed."""


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class DashboardServer:
    """A server of Optuna's dashboard; ``with`` closes it at the end.

    Beside the dashboard it serves at ``/reports`` the reports of all studies, made when they are asked for. Requests that name
    another host, or come from a page of another origin, are refused: a page on the web must not reach the studies through the
    browser of whoever looks at it.

    Parameters
    ----------
    storage : str or optuna.storages.BaseStorage
        Where the studies are; a database must exist.
    host : str
        Address to listen at. One that others reach lets them read, change and delete the studies.
    port : int
        0: any that is free.

    Attributes
    ----------
    address : str
        Such as ``http://127.0.0.1:8080``.

    Raises
    ------
    DashboardMissingError
        If optuna-dashboard is not installed.
    StorageError
        If the storage cannot be used.
    OSError
        If the port is in use, or the address is none of this machine's.
    """

    def __init__(self, storage: Any, *, host: str = HOST, port: int = PORT) -> None:
        if find_spec("optuna_dashboard") is None:
            raise DashboardMissingError(
                "the dashboard is not installed; install it by: pip install 'inna-tune[dashboard]'"
            )
        from optuna_dashboard import wsgi

        with waiting_until(at_once):
            opened = open_storage(storage, create=False)
            dashboard = wsgi(opened)
        dashboard.catchall = False  # what the database raises is answered by us
        host = HOST if host == "localhost" else host
        kind = _Server6 if ":" in host else _Server
        try:
            self._server = make_server(host, port, _refuse_all, server_class=kind, handler_class=_Handler)
        except OSError as error:
            remedy = "choose another by --port, or 0 for any that is free" if port else "check --host"
            raise OSError(f"cannot listen at {host}, port {port}: {error.strerror}; {remedy}") from None
        port = self._server.server_port
        shown = f"[{host}]" if ":" in host else host
        self.address = f"http://{shown}:{port}"
        hosts = None
        if is_loopback(host):
            hosts = frozenset({f"{shown}:{port}", f"localhost:{port}"})
        served = _told_at_once(_with_reports(dashboard, opened, self.address))
        self._server.set_app(_guarded(_confined(served), hosts))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.server_close()

    def run(self) -> None:
        """Serve until `stop`, or an exception such as KeyboardInterrupt."""
        self._server.serve_forever(poll_interval=0.2)

    def stop(self) -> None:
        """End `run`, which goes on in another thread."""
        self._server.shutdown()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True  # a browser that keeps a connection open must not keep the program from ending


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)


def _refuse_all(environ: _Environ, start: _Start) -> Iterable[bytes]:
    return _answer(start, "503 Service Unavailable", "starting", kind="text/plain")


def _answer(
    start: _Start, status: str, text: str, *, kind: str = "text/html", more: Iterable[tuple[str, str]] = ()
) -> list[bytes]:
    body = text.encode("utf-8", "replace")
    start(status, [("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(body))), *more])
    return [body]


def _guarded(inner: _Application, hosts: frozenset[str] | None) -> _Application:
    """Let only requests through that name this server, and none from other pages; None: by whatever name."""

    def application(environ: _Environ, start: _Start) -> Iterable[bytes]:
        host, origin = environ.get("HTTP_HOST", ""), environ.get("HTTP_ORIGIN")
        if (hosts is not None and host not in hosts) or origin not in (None, f"http://{host}"):
            words = "This server answers to its own address and its own pages only."
            return _answer(start, "403 Forbidden", words, kind="text/plain")
        return inner(environ, start)

    return application


def _confined(inner: _Application) -> _Application:
    """Tell the browser what the pages may load and run."""

    def application(environ: _Environ, start: _Start) -> Iterable[bytes]:
        is_report = re.match(r"/reports(/|$)", environ.get("PATH_INFO", ""))
        more = [
            ("Content-Security-Policy", _OF_REPORTS if is_report else _OF_ALL),
            ("X-Content-Type-Options", "nosniff"),
        ]
        return inner(environ, lambda status, headers, *error: start(status, [*headers, *more], *error))

    return application


def _told_at_once(inner: _Application) -> _Application:
    """Answer that the database is away, in place of waiting for it: whoever looks at a page can ask again."""

    def application(environ: _Environ, start: _Start) -> Iterable[bytes]:
        try:
            with waiting_until(at_once):
                return inner(environ, start)
        except UnreachableError as error:
            logger.warning("%s", error)
            words = f"The database does not answer: {error}. Ask again when it is back."
            return _answer(start, "503 Service Unavailable", words, kind="text/plain")

    return application


def _with_reports(dashboard: Any, storage: optuna.storages.BaseStorage, address: str) -> _Application:
    """The dashboard with a link to the reports, and the reports."""
    drawing = threading.Lock()  # matplotlib is no friend of threads

    def report(number: int) -> str | None:
        with storage_errors(storage):
            try:
                name = storage.get_study_name_from_id(number)
            except KeyError:
                return None
            study = optuna.load_study(study_name=name, storage=storage)
        with drawing:
            return render_report(study, dashboard=address)

    def exists(path: str) -> bool:
        if any(len(digits) > _MOST_DIGITS for digits in re.findall(r"\d+", path)):
            return False
        chosen = _OF_STUDY.match(path)
        if chosen is None and not path.startswith("/api/"):
            return True
        try:
            # Of no study at all, it asks whether the database answers: the dashboard would make an error of its own of that.
            storage.get_study_name_from_id(0 if chosen is None else int(chosen[1]))
        except KeyError:
            return chosen is None
        except DATABASE_ERRORS:  # what is wrong with a database is told by whoever asks it next
            return True
        return True

    def listed() -> str:
        with storage_errors(storage):
            studies = sorted((s._study_id, s.study_name) for s in storage.get_all_studies())
        return environment().get_template("reports.html.jinja").render(studies=studies)

    def application(environ: _Environ, start: _Start) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        # The dashboard answers some of these by an error with a trace.
        if not exists(path):
            return _answer(start, "404 Not Found", "There is no such study.", kind="text/plain")
        if path == "/dashboard" or path.startswith("/dashboard/"):
            return _with_link(dashboard, environ, start)
        if path.startswith("/api/"):
            return _made_visible(dashboard, environ, start)
        if path != "/reports" and not path.startswith("/reports/"):
            found: Iterable[bytes] = dashboard(environ, start)
            return found
        try:
            if path == "/reports/here":
                # The page that the link was followed from says which study it shows.
                came_from = _STUDY.search(environ.get("HTTP_REFERER", ""))
                place = f"/reports/{came_from[1]}" if came_from else "/reports"
                return _answer(start, "302 Found", "", more=[("Location", place)])
            if path in ("/reports", "/reports/"):
                return _answer(start, "200 OK", listed())
            chosen = _REPORT.fullmatch(path)
            page = report(int(chosen[1])) if chosen else None
        except UnreachableError:
            raise
        except (ValueError, jinja2.TemplateError) as error:
            return _answer(start, "500 Internal Server Error", html.escape(str(error)))
        if page is None:
            return _answer(start, "404 Not Found", "There is no such study.", kind="text/plain")
        return _answer(start, "200 OK", page)

    return application


def _with_link(dashboard: Any, environ: _Environ, start: _Start) -> Iterable[bytes]:
    """The page of the dashboard with the link to the report at its end."""
    # A page that the browser kept, or a part of it, would come without the link.
    plain = {k: v for k, v in environ.items() if k not in {"HTTP_IF_MODIFIED_SINCE", "HTTP_RANGE"}}

    def changed(body: bytes, headers: _Headers) -> bytes:
        return body.replace(b"</body>", _LINK.encode() + b"</body>")

    return _changed(changed, dashboard, plain, start)


def _made_visible(dashboard: Any, environ: _Environ, start: _Start) -> Iterable[bytes]:
    """What the page shows of the studies, with nothing in names, values and notes that turns the text around it over.

    The page writes names as they are, and those of a stranger's database may hold any character.
    """

    def changed(body: bytes, headers: _Headers) -> bytes:
        kind = next((value for name, value in headers if name.lower() == "content-type"), "")
        return shown_by_json(body.decode("utf-8")).encode("utf-8") if "json" in kind else body

    return _changed(changed, dashboard, environ, start)


def _changed(
    change: Callable[[bytes, _Headers], bytes], inner: Any, environ: _Environ, start: _Start
) -> Iterable[bytes]:
    """An answer with another body."""
    heard: list[Any] = []
    answer = inner(environ, lambda *arguments: heard.extend(arguments))
    try:
        body = b"".join(answer)
    finally:
        if hasattr(answer, "close"):
            answer.close()
    status, headers = heard[:2]
    body = change(body, headers)
    kept = [(k, v) for k, v in headers if k.lower() not in {"content-length", "last-modified", "etag"}]
    start(status, [*kept, ("Content-Length", str(len(body)))])
    return [body]
