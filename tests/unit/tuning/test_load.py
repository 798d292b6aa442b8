import asyncio
from dataclasses import replace

import numpy as np
import pytest

from metering.errors import BadInput
from serving.tuning.lengths import Lengths
from serving.tuning.load import closed_loop, open_loop
from serving.tuning.outcome import Outcome
from serving.tuning.prompts import NONCE_WORDS, PromptMaker
from serving.tuning.synthetic import Synthetic


def workload(count=5, rate=1.0, **changes):
    return Synthetic(count, rate, Lengths("fixed", 10), Lengths("fixed", 4), **changes).workload()


class ManualTimer:
    """Time moves only where somebody waits for it."""

    def __init__(self):
        self.seconds = 0.0

    def now(self):
        return self.seconds

    async def until(self, seconds):
        await asyncio.sleep(0)
        self.seconds = max(self.seconds, seconds)


class Server:
    """Answers after a fixed time of the timer; can stall."""

    def __init__(self, stall_at=None, stall_seconds=0.0):
        self.order, self.running, self.most = [], 0, 0
        self._stall = (stall_at, stall_seconds)

    async def __call__(self, index, timer):
        self.order.append(index)
        self.running += 1
        self.most = max(self.most, self.running)
        sent = timer.now()
        if index == self._stall[0]:
            timer.seconds += self._stall[1]
        await asyncio.sleep(0)
        self.running -= 1
        return Outcome(sent, sent, timer.now(), first_token_seconds=timer.now(), output_tokens=4)


async def test_open_loop_sends_in_order_at_the_arrival_times():
    asked, server, told = workload(), Server(), []
    outcomes = await open_loop(asked, server, ManualTimer(), told.append)
    assert server.order == [0, 1, 2, 3, 4]
    assert sorted(one.intended_seconds for one in outcomes) == asked.arrival_seconds.tolist()
    assert len(told) == 5


async def test_a_stall_is_charged_to_every_request_that_should_have_been_sent_meanwhile():
    asked = workload(10, 1.0)
    outcomes = await open_loop(asked, Server(0, 1000.0), ManualTimer(), lambda one: None)
    late = [one.e2e_seconds for one in outcomes]
    assert min(late[1:]) > 900


async def test_open_loop_does_not_wait_for_answers():
    held = asyncio.Event()
    started = []

    async def server(index, timer):
        started.append(index)
        if len(started) == 5:
            held.set()
        await held.wait()
        return Outcome(0.0, 0.0, timer.now())

    assert len(await open_loop(workload(), server, ManualTimer(), lambda one: None)) == 5


async def test_closed_loop_has_never_more_than_its_clients_in_flight_and_sends_all():
    server = Server()
    outcomes = await closed_loop(workload(20), server, ManualTimer(), lambda one: None, clients=3)
    assert len(outcomes) == 20
    assert server.most == 3


async def test_stopping_ends_the_sending():
    server = Server()
    await open_loop(workload(20), server, ManualTimer(), lambda one: None, stop=lambda: len(server.order) >= 3)
    assert len(server.order) < 6


async def test_a_closed_loop_needs_a_client():
    with pytest.raises(BadInput):
        await closed_loop(workload(), Server(), ManualTimer(), lambda one: None, clients=0)


def test_prompts_repeat_and_share_as_the_workload_says():
    asked = workload(200, prefix_tokens=6, prefix_ratio=0.5, repeat_ratio=0.3)
    maker = PromptMaker(asked)
    texts = [maker.text(i) for i in range(len(asked))]
    assert all(len(text.split()) == 10 for text in texts)
    for i in np.flatnonzero(asked.repeat_of >= 0):
        assert texts[i] == texts[asked.repeat_of[i]]
    originals = np.flatnonzero(asked.repeat_of < 0)
    assert len({texts[i] for i in originals}) == len(originals)
    shared = {" ".join(texts[i].split()[:6]) for i in originals if asked.prefix_tokens[i]}
    assert len(shared) == 1


def test_texts_of_a_file_begin_alike_in_one_run_and_otherwise_in_another():
    asked = replace(workload(3), texts=("who?", "why?", "who?"), repeat_of=np.array([-1, -1, 0]))
    first, second = ([PromptMaker(asked, seed).text(i) for i in range(3)] for seed in (0, 1))
    assert first[0] == first[2] != first[1]
    assert first[0].endswith(" who?")
    assert not set(first) & set(second)
    assert first[0].split()[:NONCE_WORDS] == first[1].split()[:NONCE_WORDS] != second[0].split()[:NONCE_WORDS]
