from __future__ import annotations

from serving.admission.held_cap import HoldableCap
from serving.admission.queue import AdmissionQueue, QueuePolicy


def test_a_hold_is_in_force_and_what_is_below_comes_back() -> None:
    queue = AdmissionQueue(16)
    cap = HoldableCap(queue)
    cap.hold(4)
    assert (queue.cap, cap.in_force, cap.cap, cap.held) == (4, 4, 16, 4)
    cap.hold(None)
    assert (queue.cap, cap.cap, cap.held) == (16, 16, None)


def test_a_mover_moves_what_a_held_cap_goes_back_to_and_its_policy_is_in_force_at_once() -> None:
    queue = AdmissionQueue(16)
    cap = HoldableCap(queue)
    cap.hold(4)
    cap.resize(20, policy=QueuePolicy(max_queue=3))
    assert queue.cap == 4
    assert queue._policy.max_queue == 3
    cap.hold(None)
    assert queue.cap == 20


def test_without_a_hold_a_mover_moves_the_queue() -> None:
    queue = AdmissionQueue(16)
    HoldableCap(queue).resize(5)
    assert queue.cap == 5
