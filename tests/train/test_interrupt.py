from __future__ import annotations

import os
import signal
import threading

import pytest

from clearsight.train.interrupt import Interrupted, Interruption


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_is_noted_and_the_handlers_come_back(name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with Interruption() as interruption:
        assert interruption.signal is None
        os.kill(os.getpid(), number)
        assert interruption.signal == name
    assert signal.getsignal(number) is before


def test_the_second_ctrl_c_ends():
    with Interruption():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_at_once():
    went_on = []

    def work(interruption: Interruption) -> None:
        with interruption.at_once():
            os.kill(os.getpid(), signal.SIGTERM)
            went_on.append(True)

    with Interruption() as interruption:
        with pytest.raises(Interrupted):
            work(interruption)
        assert interruption.signal == "SIGTERM"
        with pytest.raises(Interrupted):  # a signal that came before is not forgotten
            work(interruption)
    assert not went_on
    assert not issubclass(Interrupted, Exception)


def test_a_forked_worker_leaves_it_to_its_parent():
    with Interruption() as interruption:
        pid = os.fork()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0 if interruption.signal is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_other_threads_cannot_listen_and_do_not_fail():
    noted: list[str | None] = []

    def enter() -> None:
        with Interruption() as interruption:
            noted.append(interruption.signal)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert noted == [None]
