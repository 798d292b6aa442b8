from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from serving.placement.janitor import RUN_VARIABLE, Janitor, processes_of, sweep

WAITS = [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"]


def started(environment: dict[str, str], **options: object) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        WAITS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        **options,  # type: ignore[call-overload]
    )
    assert process.stdout.readline() == "up\n"
    return process


def ended(process: subprocess.Popen[str]) -> bool:
    """Whether it ended without being asked through its pipe, which is still open."""
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        return False
    finally:
        process.stdin.close()
        process.stdout.close()
    return True


def test_a_run_is_found_by_its_mark_and_no_other_is_touched(tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    mine = started({RUN_VARIABLE: str(run)}, start_new_session=True)
    theirs = started({RUN_VARIABLE: str(other)})
    assert [process.pid for process in processes_of(run)] == [mine.pid]
    sweep(run)
    assert ended(mine)
    assert not run.exists()
    assert theirs.poll() is None
    theirs.kill()
    ended(theirs)


def test_a_process_without_its_environment_is_found_by_an_open_file(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with (run / "log").open("w") as log:
        process = started({}, stderr=log)
    assert [found.pid for found in processes_of(run)] == [process.pid]
    sweep(run)
    assert ended(process)


def test_the_janitor_sweeps_when_its_gateway_dies_without_a_word(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    process = started({RUN_VARIABLE: str(run)}, start_new_session=True)
    janitor = Janitor(run)
    janitor._process.stdin.close()  # type: ignore[union-attr]  # what the kernel does when the gateway dies
    assert ended(process)
    assert janitor._process.wait(30) == 0
    assert not run.exists()


def test_a_dismissed_janitor_leaves_everything_alone(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    Janitor(run).dismiss()
    assert run.exists()
