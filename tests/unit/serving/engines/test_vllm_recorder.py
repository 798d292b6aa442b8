from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.work import EngineSteps, Method, WorkRecord
from serving.engines.vllm_recorder import FLUSH_SECONDS, Recording, StepRecorder, current_recording
from tests.unit.serving.engines.contract import totals
from tests.unit.serving.fakes import ManualClock

BLOCK_TOKENS = 16
STEP_TOKENS = 512


@dataclass
class Output:
    """Like vLLM's EngineCoreOutput."""

    request_id: str
    new_token_ids: list[int] = field(default_factory=lambda: [7])
    finish_reason: str | None = None
    events: list[Any] | None = None
    prefill_stats: Any = None


def event(name: str, seconds: float) -> Any:
    return SimpleNamespace(type=SimpleNamespace(name=name), timestamp=seconds)


class Rig:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.steps: list[EngineSteps] = []
        self.work: dict[str, list[WorkRecord]] = {}
        self.recordings: dict[str, Recording] = {}
        self.recorder = StepRecorder(self.steps.append, "m", STEP_TOKENS, BLOCK_TOKENS, self.clock)

    def add(self, internal_id: str, prompt: int | Sequence[int], request_id: str | None = None) -> None:
        """``prompt``: its tokens, or how many that no other prompt begins with."""
        if isinstance(prompt, int):
            prompt = [hash(internal_id), *range(prompt - 1)]
        request_id = request_id or internal_id
        work = self.work.setdefault(request_id, [])
        recording = self.recordings.setdefault(request_id, Recording(request_id, "m", "t", work.append))
        token = current_recording.set(recording)
        self.recorder.added(internal_id, prompt)
        current_recording.reset(token)

    def step(self, *outputs: Output | str, seconds: float = 0.01) -> None:
        self.clock.advance(seconds)
        whole = [Output(output) if isinstance(output, str) else output for output in outputs]
        self.recorder.stepped(whole, self.clock())


def cached(tokens: int) -> Any:
    return SimpleNamespace(num_cached_tokens=tokens)


def test_silence_counts_from_the_last_output_or_from_the_first_request_of_an_idle_engine() -> None:
    rig = Rig()
    rig.clock.advance(100)
    assert rig.recorder.silent_seconds() == 0
    rig.add("a", 10)
    rig.clock.advance(3)
    assert rig.recorder.silent_seconds() == pytest.approx(3)
    rig.step("a", seconds=1)
    assert rig.recorder.silent_seconds() == 0
    rig.clock.advance(5)
    rig.add("b", 10)
    assert rig.recorder.silent_seconds() == pytest.approx(5)
    rig.recorder.aborted(["a", "b"])
    assert rig.recorder.silent_seconds() == 0


def test_the_first_output_is_the_prefill_and_its_hits_are_not_computed() -> None:
    rig = Rig()
    rig.add("a", prompt=100)
    rig.step(Output("a", prefill_stats=cached(64), events=[event("SCHEDULED", rig.clock() + 0.004)]))
    (record,) = rig.work["a"]
    assert (record.prefill_tokens, record.cached_tokens, record.decode_tokens) == (36, 64, 0)
    assert (record.started_seconds, record.ended_seconds) == pytest.approx((1000.004, 1000.01))
    assert record.method is Method.MEASURED
    assert rig.recordings["a"].first_token_seconds == pytest.approx(1000.01)


def test_decode_contexts_begin_after_the_prompt_and_go_on_over_flushes() -> None:
    rig = Rig()
    rig.add("a", prompt=10)
    for _ in range(9):
        rig.step("a", seconds=0.2)
    rig.step(Output("a", finish_reason="stop"), seconds=0.2)
    decodes = [record for record in rig.work["a"] if record.decode_tokens]
    assert len(decodes) > 2
    context = 11
    for record in decodes:
        assert record.first_context_tokens == context
        context += record.decode_tokens
    assert totals(rig.work["a"]) == (10, 0, 9)
    assert rig.recorder.running == 0


def test_work_is_reported_within_the_flush_time_while_a_sequence_runs() -> None:
    rig = Rig()
    rig.add("a", prompt=10)
    for number in range(100):
        rig.step("a", seconds=0.07)
        reported = totals(rig.work["a"])[2]
        assert number - reported <= FLUSH_SECONDS / 0.07 + 1
    assert max(record.ended_seconds - record.started_seconds for record in rig.work["a"]) <= FLUSH_SECONDS + 0.15


def test_intervals_of_a_sequence_do_not_overlap() -> None:
    rig = Rig()
    rig.add("a", prompt=10)
    for _ in range(50):
        rig.step("a", seconds=0.06)
    rig.recorder.flush()
    work = rig.work["a"]
    for before, after in zip(work[:-1], work[1:], strict=True):  # noqa: RUF007
        assert before.ended_seconds <= after.started_seconds <= after.ended_seconds


def test_several_tokens_of_one_step_are_several_decode_steps() -> None:
    rig = Rig()
    rig.add("a", prompt=10)
    rig.step(Output("a", [1]))
    rig.step(Output("a", [2, 3, 4]))
    rig.step(Output("a", [5], finish_reason="length"))
    assert totals(rig.work["a"]) == (10, 0, 4)


def test_a_prompt_finished_with_several_tokens_has_decode_steps_at_once() -> None:
    rig = Rig()
    rig.add("a", prompt=10)
    rig.step(Output("a", [1, 2, 3], finish_reason="length"))
    assert totals(rig.work["a"]) == (10, 0, 2)
    (decode,) = [record for record in rig.work["a"] if record.decode_tokens]
    assert decode.first_context_tokens == 11


def test_what_a_preemption_evicted_is_computed_and_booked_again() -> None:
    rig = Rig()
    rig.add("a", prompt=10)
    for _ in range(4):
        rig.step("a")
    rig.step(Output("a", events=[event("PREEMPTED", rig.clock()), event("SCHEDULED", rig.clock() + 0.001)]))
    rig.step(Output("a", finish_reason="stop"))
    # prompt; then prompt and the three tokens whose keys and values had been made
    assert [record.prefill_tokens for record in rig.work["a"] if record.prefill_tokens] == [10, 13]
    assert totals(rig.work["a"])[2] == 3 + 1
    assert sum(record.preemptions for record in rig.work["a"]) == 1
    last = [record for record in rig.work["a"] if record.decode_tokens][-1]
    assert last.first_context_tokens == 15


def test_an_abort_before_the_first_token_books_at_most_one_step_of_the_prompt_as_modelled() -> None:
    for prompt, booked in ((100, 100), (5000, STEP_TOKENS)):
        rig = Rig()
        rig.add("a", prompt=prompt)
        rig.clock.advance(0.2)
        rig.recorder.aborted(["a"])
        (record,) = rig.work["a"]
        assert (record.prefill_tokens, record.method) == (booked, Method.MODELLED)
        assert (record.started_seconds, record.ended_seconds) == pytest.approx((1000.0, 1000.2))
        assert rig.recorder.running == 0


def test_an_abort_while_the_step_that_it_found_is_still_under_way_books_nothing() -> None:
    rig = Rig()
    rig.add("busy", prompt=10)
    rig.step("busy")
    rig.clock.advance(0.1)
    rig.add("early", prompt=100)
    rig.add("late", prompt=100)
    rig.clock.advance(0.1)
    rig.recorder.aborted(["early"])
    assert rig.work["early"] == []
    # the step that it found has ended: the next, under way now, has it
    rig.step("busy")
    rig.clock.advance(0.1)
    rig.recorder.aborted(["late"])
    assert [record.prefill_tokens for record in rig.work["late"]] == [100]


def test_an_abort_at_the_very_moment_of_the_beginning_books_nothing() -> None:
    rig = Rig()
    rig.add("a", prompt=100)
    rig.recorder.aborted(["a"])
    assert rig.work["a"] == []


def test_an_abort_hands_over_what_was_decoded() -> None:
    rig = Rig()
    rig.add("a", prompt=10)
    for _ in range(6):
        rig.step("a")
    rig.recorder.aborted(["a"])
    assert totals(rig.work["a"]) == (10, 0, 5)
    assert rig.recorder.running == 0


def test_the_step_that_ran_while_a_sequence_was_aborted_is_booked_too() -> None:
    rig = Rig()
    rig.add("a", prompt=10)
    for _ in range(3):
        rig.step("a")
    rig.recorder.aborted(["a"])
    rig.step(Output("a", finish_reason="abort"))
    assert totals(rig.work["a"]) == (10, 0, 3)


@pytest.mark.parametrize(
    ("shared", "own", "reused"),
    [(40, 20, 32), (40, 0, 32), (15, 30, 0), (32, 0, 16), (48, 100, 48)],
    ids=["whole blocks", "of a prompt seen before", "less than a block", "never the last token", "of a longer prompt"],
)
def test_an_unseen_prefill_reuses_the_blocks_that_an_earlier_prompt_begins_with(
    shared: int, own: int, reused: int
) -> None:
    rig = Rig()
    rig.add("first", [*range(shared), *range(1000, 1040)])
    rig.step("first")
    rig.step(Output("first", finish_reason="stop"))
    rig.add("second", [*range(shared), *range(2000, 2000 + own)])
    rig.clock.advance(1)
    rig.recorder.aborted(["second"])
    (record,) = rig.work["second"]
    assert (record.cached_tokens, record.prefill_tokens) == (reused, min(shared + own - reused, STEP_TOKENS))
    assert record.method is Method.MODELLED


def test_a_prompt_that_was_never_computed_is_reused_by_nobody() -> None:
    rig = Rig()
    rig.add("first", range(64))
    rig.add("second", range(64))
    rig.step()
    rig.recorder.aborted(["first", "second"])
    assert [record.cached_tokens for record in rig.work["first"] + rig.work["second"]] == [0, 0]


def test_an_unknown_abort_or_output_is_left_alone() -> None:
    rig = Rig()
    rig.recorder.aborted(["nobody"])
    rig.step("nobody")
    rig.recorder.added("outside", range(10))
    rig.step("outside")
    assert rig.recorder.running == 0
    assert rig.work == {}


def test_sequences_of_one_request_are_booked_under_it() -> None:
    rig = Rig()
    for index in range(3):
        rig.add(f"{index}_r", prompt=20, request_id="r")
    for _ in range(5):
        rig.step("0_r", "1_r", "2_r")
    rig.recorder.flush()
    assert totals(rig.work["r"]) == (60, 0, 12)
    assert {record.request_id for record in rig.work["r"]} == {"r"}


def test_steps_and_the_sequences_in_them_are_counted_and_flushed_by_time() -> None:
    rig = Rig()
    rig.add("a", prompt=1)
    rig.add("b", prompt=1)
    for _ in range(30):
        rig.step("a", "b", seconds=0.1)
    rig.recorder.flush()
    assert sum(steps.steps for steps in rig.steps) == 30
    assert sum(steps.sequence_steps for steps in rig.steps) == 60
    assert len(rig.steps) > 3
    for before, after in zip(rig.steps[:-1], rig.steps[1:], strict=True):
        assert before.started_seconds < before.ended_seconds <= after.started_seconds


def test_slices_of_one_step_are_one_step() -> None:
    rig = Rig()
    rig.add("a", prompt=1)
    rig.add("b", prompt=1)
    rig.step("a")
    rig.step("b", seconds=0.0)
    rig.recorder.flush()
    assert [(steps.steps, steps.sequence_steps) for steps in rig.steps] == [(1, 2)]


def test_idle_time_belongs_to_no_step() -> None:
    rig = Rig()
    rig.add("a", prompt=1)
    rig.step(Output("a", finish_reason="stop"))
    rig.recorder.flush()
    rig.clock.advance(3600.0)
    woken = rig.clock()
    rig.add("b", prompt=1)
    rig.step("b", seconds=0.2)
    rig.recorder.flush()
    assert rig.steps[-1].started_seconds == woken
    assert rig.steps[-1].ended_seconds == pytest.approx(woken + 0.2)


def test_nothing_is_reported_twice() -> None:
    rig = Rig()
    rig.add("a", prompt=3)
    for _ in range(5):
        rig.step("a")
    for _ in range(3):
        rig.recorder.flush()
    rig.recorder.aborted(["a"])
    rig.recorder.aborted(["a"])
    assert totals(rig.work["a"]) == (3, 0, 4)
    assert sum(steps.steps for steps in rig.steps) == 5


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    choices=st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(["step", "step", "step", "flush", "abort"]), st.floats(0, 0.7)),
        max_size=80,
    ),
)
def test_decode_steps_are_output_tokens_less_one_per_sequence_whatever_the_interleaving(
    lengths: list[int], choices: list[tuple[int, str, float]]
) -> None:
    rig = Rig()
    made = {}
    for number, _ in enumerate(lengths):
        rig.add(str(number), prompt=4 + number)
        made[str(number)] = 0
    live = set(made)
    for pick, what, seconds in choices:
        if not live:
            break
        name = sorted(live)[pick % len(live)]
        if what == "flush":
            rig.recorder.flush()
        elif what == "abort":
            if made[name]:
                rig.recorder.aborted([name])
                live.discard(name)
        else:
            made[name] += 1
            done = made[name] == lengths[int(name)]
            rig.step(Output(name, finish_reason="length" if done else None), seconds=seconds)
            if done:
                live.discard(name)
    rig.recorder.flush()
    for name, tokens in made.items():
        prefill = 4 + int(name) if tokens else 0
        assert totals(rig.work[name]) == (prefill, 0, max(0, tokens - 1))
    assert rig.recorder.running == len(live)


@given(
    choices=st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["step"] * 3 + ["flush"] * 2 + ["abort"]), st.floats(0.01, 0.7)),
        max_size=60,
    )
)
def test_no_work_began_before_what_an_earlier_flush_said_was_the_oldest_under_way(
    choices: list[tuple[int, str, float]],
) -> None:
    rig = Rig()
    live: set[str] = set()
    promised, seen = 0.0, 0
    for number, (pick, what, seconds) in enumerate(choices):
        if len(live) <= pick:
            rig.add(str(number), prompt=9)
            live.add(str(number))
        name = sorted(live)[pick % len(live)]
        told = None
        if what == "flush":
            rig.clock.advance(seconds)
            pending = rig.recorder.flush()
            told = rig.clock() if pending is None else pending
        elif what == "abort":
            rig.recorder.aborted([name])
            live.discard(name)
        else:
            rig.step(*sorted(live), seconds=seconds)
        records = [record for work in rig.work.values() for record in work]
        since = sorted(record.started_seconds for record in records)
        assert sum(started < promised for started in since) <= seen
        if told is not None:
            promised = told
            seen = sum(started < promised for started in since)


def test_step_totals_hold_prompts_decoded_tokens_and_their_context() -> None:
    rig = Rig()
    rig.add("a", prompt=100)
    rig.add("b", prompt=10)
    rig.step(Output("a", prefill_stats=cached(64)), Output("b"))
    rig.step("a", "b")
    rig.step("a", Output("b", finish_reason="stop"))
    rig.recorder.flush()
    (steps,) = rig.steps
    assert (steps.steps, steps.sequence_steps) == (3, 6)
    assert (steps.prefill_tokens, steps.decode_tokens) == (36 + 10, 4)
    assert steps.context_tokens == (101 + 11) + (102 + 12)


def test_no_interval_of_steps_spans_a_time_without_work() -> None:
    rig = Rig()
    rig.add("a", prompt=10)
    rig.step(Output("a", finish_reason="stop"), seconds=0.1)
    rig.clock.advance(0.2)
    rig.add("b", prompt=10)
    rig.step(Output("b", finish_reason="stop"), seconds=0.1)
    rig.recorder.flush()
    assert [steps.ended_seconds - steps.started_seconds for steps in rig.steps] == pytest.approx([0.1, 0.1])
