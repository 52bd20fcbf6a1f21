"""The first signal asks for a clean end, and nothing that happens then gets in its way."""

import logging
import signal

import pytest

from inna_tune.study.signals import Signals


class Reentered(logging.Handler):
    """Standard error while it is written to: whoever writes from a signal's handler is refused."""

    def emit(self, record):
        raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")


@pytest.fixture
def reentered():
    logger, handler = logging.getLogger("inna_tune"), Reentered()
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)


@pytest.fixture
def interruptible():
    """As in a terminal: a shell lets what it starts in the background pass over Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("reentered", "interruptible")
def test_a_signal_while_standard_error_is_written_to_asks_for_a_clean_end():
    before = signal.getsignal(signal.SIGINT)
    with Signals() as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signals.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_elsewhere_than_among_the_usual_handlers_signals_do_what_they_did():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with Signals() as signals:
            signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM]
        assert signals.received is None
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_whoever_ends_it_or_hangs_up_asks_for_a_clean_end(number):
    before = signal.getsignal(number)
    with Signals() as signals:
        signal.raise_signal(number)
        assert signals.received == number
        with pytest.raises(SystemExit) as ended:
            signals.check()
        assert ended.value.code == 128 + number
    assert signal.getsignal(number) is before


def test_a_search_that_outlives_its_terminal_on_purpose_does():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as by nohup
    try:
        with Signals() as signals:
            signal.raise_signal(signal.SIGHUP)
        assert signals.received is None
    finally:
        signal.signal(signal.SIGHUP, before)
