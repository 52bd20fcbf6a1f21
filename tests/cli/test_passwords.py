"""No password is ever shown, in whatever form of a URL, by any message or command that is printed."""

import contextlib
import shlex

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from inna_tune.cli import app
from inna_tune.cli.commands import command_line
from inna_tune.store.errors import StorageError, has_password, redact_url, storage_word
from inna_tune.store.opening import create_study, open_storage, open_store

# Of letters and digits that stand in no message, so that a half of it is found, too.
WORD = st.text("QZ7", min_size=4, max_size=8).map("Q".__add__)
ODD = st.sampled_from(["", "/", "@", ":", "?", "#", "&", "=", "%40", "%2F", "?password=", "://", " "])
USERS = st.sampled_from(["me", "", "a/b", "me@corp", "corp\\me", "a%2Fb", "a:b"])
SCHEMES = st.sampled_from(["postgresql+psycopg", "postgresql", "mysql", "junk"])
# No address of another machine, and a port at which nobody listens.
PLACES = st.sampled_from(["127.0.0.1:1/d", "127.0.0.1:1", "[::1]:1/d", "/d?host=127.0.0.1&port=1"])
PARAMETERS = st.sampled_from(
    ["password", "passwd", "sslpassword", "pass%77ord", "PWD", "secret", "odbc_connect"]
)


@st.composite
def urls(draw):
    """The URL of a database and the parts of its password."""
    parts = [draw(WORD), draw(WORD)]
    odd = draw(ODD)
    password = odd.join(parts)
    user, scheme, place = draw(USERS), draw(SCHEMES), draw(PLACES)
    form = draw(
        st.sampled_from(["://", "://", ":", ":/", ":///", "", "//", "no host", "no slashes", "query"])
    )
    if form in ("no host", "no slashes"):
        password = password.replace("@", "")  # what follows it would be the host
    if form == "no host":
        return f"{scheme}://{user}:{password}", parts
    if form == "no slashes":
        return f"{scheme}:{user}:{password}", parts
    if form == "query":
        return f"{scheme}://127.0.0.1:1/d?user=me&{draw(PARAMETERS)}={password}", parts
    before = form if form in ("", "//") else f"{scheme}{form}"
    return f"{before}{user}:{password}@{place}", parts


def assert_hidden(parts, text):
    assert not [part for part in parts if part in text], text


@given(urls())
@settings(max_examples=500)
def test_no_url_shows_one(made):
    url, parts = made
    assert_hidden(parts, redact_url(url))
    assert has_password(url)
    assert_hidden(parts, storage_word(url))


@given(urls())
@settings(max_examples=100)
def test_no_storage_shows_one_when_it_is_opened(made):
    url, parts = made
    with pytest.raises(StorageError) as raised:
        open_store(url)
    assert_hidden(parts, str(raised.value))


COMMANDS = [
    ["studies"],
    ["show", "s"],
    ["report", "s"],
    ["studies", "export", "s", "-o", "new.db"],
    ["studies", "import", "file.db"],
    ["dashboard", "--port", "0"],
    ["worker", "s", "t.csv"],
    ["fit", "t.csv", "--target", "y"],
    ["fit", "t.csv", "--target", "y", "--resume"],
    ["compare", "t.csv", "--target", "y"],
    ["prior", "learn", "s", "-o", "new.json"],
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folder")
    pd.DataFrame({"x": range(40), "y": ["a", "b"] * 20}).to_csv(folder / "t.csv", index=False)
    create_study(open_storage(f"sqlite:///{folder}/file.db"), "s", "maximize", resume=False)
    return folder


@given(urls(), st.sampled_from(COMMANDS))
@settings(max_examples=100)
def test_no_command_shows_one(folder, made, words):
    url, parts = made
    with contextlib.chdir(folder):
        done = CliRunner().invoke(app, [*words, "--storage", url])
    assert done.exit_code == 2, done.output
    assert_hidden(parts, done.output + done.stderr)


@given(urls())
def test_commands_that_are_printed_name_a_variable(made):
    printed = command_line("show", study="-s", storage=made[0])
    assert printed == 'inna-tune show --storage "$INNA_TUNE_STORAGE" -- -s'


def test_commands_read_the_variable_that_is_printed(folder):
    runner = CliRunner(env={"INNA_TUNE_STORAGE": f"sqlite:///{folder}/file.db"})
    printed = command_line("show", study="s", storage="postgresql://me:secret@host/d")
    for line, code in ((printed, 0), ("inna-tune show s", 0), ("inna-tune show s --storage ''", 2)):
        assert runner.invoke(app, shlex.split(line)[1:]).exit_code == code


def test_the_variable_gives_way_to_what_is_given(folder):
    runner = CliRunner(env={"INNA_TUNE_STORAGE": "sqlite:///nowhere.db"})
    given = f"sqlite:///{folder}/file.db"
    for words in (
        ["studies", "--storage", given],
        ["studies", "--storage", given, "export", "s", "-o", str(folder / "x.db")],
    ):
        assert runner.invoke(app, words).exit_code == 0
    assert runner.invoke(app, ["studies"]).exit_code == 2
    # Where the shell had nothing to put in its place, no other database is taken for it.
    assert CliRunner().invoke(app, ["studies", "--storage", "$INNA_TUNE_STORAGE"]).exit_code == 2


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///a/b.db",
        "sqlite:////a:b@c.db",
        "postgresql://me@host:5432/name",
        "postgresql://[::1]:5432/d?sslmode=require",
    ],
)
def test_what_has_none_is_shown_whole(url):
    assert redact_url(url) == url
    assert not has_password(url)
