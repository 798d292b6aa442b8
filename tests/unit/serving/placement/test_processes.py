from __future__ import annotations

import os
import subprocess
import sys

import psutil

from serving.placement.processes import end_processes, reap_adopted


def dead_child() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(3)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid


def test_adopted_dead_are_buried_and_own_ones_left_to_their_owner() -> None:
    adopted, own = dead_child(), dead_child()
    assert adopted in reap_adopted({own})
    assert not psutil.pid_exists(adopted)
    assert os.waitpid(own, 0)[0] == own


def test_what_does_not_listen_is_killed() -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
    process = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    assert end_processes([psutil.Process(process.pid)], grace_seconds=0.2) == [process.pid]
    process.stdout.close()
    process.wait()
