"""Jobs take turns, wait in a queue with an end, and stop when they are told to; a bad checkpoint is one line."""

import threading
import time

import pytest

from retinashift.web.model import STAGES, Busy, Cancelled, Model


@pytest.fixture
def model():
    """One that is loaded as far as turns are concerned."""
    model = Model("", "cpu", 3)
    model._loaded.set()
    return model


def test_only_one_has_its_turn_and_the_first_comes_first(model):
    order, inside, most = [], [], []

    def job(number, ticket):
        with model.turn(ticket, threading.Event()):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.02)
            order.append(number)
            inside.remove(number)

    threads = [threading.Thread(target=job, args=(number, model.join())) for number in range(3)]
    for thread in reversed(threads):  # whoever comes to wait first
        thread.start()
    for thread in threads:
        thread.join(10)
    assert order == [0, 1, 2]
    assert max(most) == 1


def test_more_jobs_than_allowed_are_refused_and_there_is_room_again_when_one_leaves(model):
    tickets = [model.join() for _ in range(3)]
    with pytest.raises(Busy, match="3 jobs are waiting"):
        model.join()
    model.leave(tickets[1])
    assert model.before(model.join()) == 2


def test_who_waits_is_told_how_many_come_first_and_can_give_up(model):
    first, second, told = model.join(), model.join(), []
    cancelled = threading.Event()

    def tell(text):
        told.append(text)
        cancelled.set()

    with pytest.raises(Cancelled), model.turn(second, cancelled, tell):
        pass
    assert told == ["waiting for 1 job of others"]
    model.leave(first)  # the second has left by itself
    with model.turn(model.join(), threading.Event()):
        pass


def test_the_end_of_the_page_cancels_who_works_and_who_waits_and_waits_for_them(model):
    ended = []

    def job(ticket):
        try:
            with model.turn(ticket, threading.Event()):
                while True:
                    time.sleep(0.01)
                    model.stop_if(threading.Event())
        except Cancelled:
            ended.append(ticket)

    tickets = [model.join(), model.join()]
    for ticket in tickets:
        threading.Thread(target=job, args=(ticket,)).start()
    model.close()
    deadline = time.monotonic() + 5
    while len(ended) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(ended) == set(tickets)
    assert not model._queue


def test_loading_is_told_while_a_job_waits_for_it_and_ends_ready():
    model, told = Model("", "cpu", 3), []
    assert model.status in STAGES
    assert not model.loaded
    threading.Timer(0.5, model.start).start()
    with model.turn(model.join(), threading.Event(), told.append):
        assert model.pipeline().config.scale == 4
    assert told[0] in STAGES
    assert (model.share, model.status) == (1.0, "ready: shipped x4, cpu")


@pytest.mark.parametrize(
    ("checkpoint", "device", "said"), [("/no/such", "cpu", "no checkpoint folder"), ("", "x", "x")]
)
def test_what_cannot_be_loaded_is_said_in_one_line(checkpoint, device, said):
    model = Model(checkpoint, device, 3)
    model._load()
    assert model.loaded
    assert said in model.status
    assert "\n" not in model.status
    with pytest.raises(ValueError, match="the checkpoint cannot be loaded"):
        model.pipeline()
