from __future__ import annotations

from pathlib import Path

from serving.engines.core_cause import core_cause, marks, told_elsewhere, written_since

LOG = """\
(EngineCore pid=1561) ERROR 11-22 15:37:11 [core.py:1510] Traceback (most recent call last):
(EngineCore pid=1561) ERROR 11-22 15:37:11 [core.py:1510]     from flashinfer import (
(EngineCore pid=1561) ERROR 11-22 15:37:11 [core.py:1510] ModuleNotFoundError: No module named 'flashinfer'
Process EngineCore:
Traceback (most recent call last):
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""


def test_the_cores_own_exception_is_found() -> None:
    assert core_cause(LOG) == "ModuleNotFoundError: No module named 'flashinfer'"


def test_the_last_of_several_is_the_cause() -> None:
    later = LOG + "(EngineCore_DP0 pid=9) ERROR 1-1 1:1:1 [core.py:1] torch.OutOfMemoryError: CUDA out of memory.\n"
    assert core_cause(later) == "torch.OutOfMemoryError: CUDA out of memory."


def test_a_core_that_only_passes_it_on_is_not_the_cause() -> None:
    worker = "(Worker pid=4) ERROR 1-1 1:1:1 [multiproc_executor.py:9] SafetensorError: incomplete metadata\n"
    core = "(EngineCore pid=2) ERROR 1-1 1:1:2 [core.py:9] Exception: it failed. See stack trace for root cause.\n"
    assert core_cause(worker + core) == "SafetensorError: incomplete metadata"


def test_what_a_healthy_core_warned_of_is_not_the_cause() -> None:
    assert core_cause("(EngineCore pid=1) WARNING 1-1 1:1:1 [a.py:1] ImportError: no deep_gemm, going on\n") is None


def test_an_exception_without_words_is_told_by_its_name() -> None:
    assert core_cause("(EngineCore pid=1) ERROR 1-1 1:1:1 [core.py:1] AssertionError\n") == "AssertionError"


def test_vllm_says_that_the_cause_is_elsewhere() -> None:
    assert told_elsewhere("Engine core initialization failed. See root cause above. Failed core proc(s): {}")
    assert not told_elsewhere("max_model_len 99999 is above the model's 8192")


def test_other_processes_exceptions_are_not_the_cores() -> None:
    assert core_cause("(MainProcess pid=3) ERROR 1-1 [a.py:1] ValueError: no\nRuntimeError: See above") is None


def test_only_what_was_written_since_counts(tmp_path: Path) -> None:
    stream = tmp_path / "worker.out"
    stream.write_text(LOG)
    before = marks([stream, tmp_path / "missing"])
    assert core_cause(written_since(before)) is None
    with stream.open("a") as file:
        file.write(LOG.replace("flashinfer", "another"))
    assert core_cause(written_since(before)) == "ModuleNotFoundError: No module named 'another'"


def test_a_pipe_is_left_alone() -> None:
    assert marks([Path("/dev/null")]) == {}
