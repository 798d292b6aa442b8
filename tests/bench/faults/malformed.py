"""Requests that no client should send, drawn from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

CHAT = b'{"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}'
BODIES: dict[bytes, bytes] = {
    b"/v1/chat/completions": CHAT,
    b"/v1/completions": b'{"model": "m", "prompt": "Hi", "max_tokens": 2, "stream": true}',
    b"/v1/embeddings": b'{"model": "all-MiniLM-L6-v2", "input": ["Hi"], "dimensions": 2}',
    b"/v1/responses": b'{"model": "m", "input": [{"role": "user", "content": "Hi"}], "max_output_tokens": 2}',
    b"/v1/batches": b'{"input_file_id": "file-2", "endpoint": "/v1/completions", "completion_window": "24h"}',
    b"/v1/files": b'--b\r\ncontent-disposition: form-data; name="file"; filename="2"\r\n\r\n{}\r\n--b--\r\n',
    b"/v1/cache/2/feedback": b'{"good": 2}',
}
_PATHS = [b"/v1/chat/completions"] * 8 + list(BODIES)
_OTHER_PATHS = (
    b"/v1/%00", b"/v1/models/" + b"a" * 3000, b"/v1/models/%ff%fe", b"/../../etc/passwd", b"/v1//chat/completions",
    b"/v1/receipts/%0d%0ax", b"/v1/events?since=nan", b"/v1/events?since=1e400", b"/v1/usage?tenant=%00", b"*",
    b"/v1/cache?all=%ff", b"/v1/files?limit=99999999999999999999", b"/" + b"x" * 60_000, b"http://other/v1/models",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Odd:
    raw: bytes
    complete: bool
    """All that its head announces is there: whoever reads it can answer."""


def odd_body(rng: random.Random, good: bytes = CHAT) -> bytes:
    kind = rng.randrange(13)
    if kind == 0:
        return good[: rng.randrange(len(good))]
    if kind == 1:
        return rng.choice([b"[", b'{"a":', b'[{"a":']) * rng.randrange(1, 100_000)
    if kind == 2:
        return good.replace(b"Hi", b"\\u0000\\ud800" * rng.randrange(1, 50))
    if kind == 3:
        return good.replace(b"2", rng.choice([b"1e999", b"9" * 400, b"-1", b"NaN", b"true", b"2.5", b'"2"', b"1e-400"]))
    if kind == 4:
        return rng.randbytes(rng.randrange(2000))
    if kind == 5:
        return good.replace(b"user", rng.randbytes(8))
    if kind == 6:
        return b'{"model": "m", "messages": ' + b'[{"content":' * 500 + b"1" + b"}]" * 500 + b"}"
    if kind == 7:
        return good.replace(b'"m"', rng.choice([b"null", b'""', b"{}", b'"' + b"m" * 5000 + b'"', b'"\\udfff"']))
    if kind == 8:
        return good.replace(b"{", b'{"stream": true, "n": 10000000, ', 1)
    if kind == 9:
        return good.replace(b"{", b'{"stop": ["' + b"s" * 10_000 + b'"], "logit_bias": {"x": 1e308}, "seed": 1e30, ', 1)
    if kind == 10:
        return good.replace(b"Hi", b"H" * rng.choice([1_000_000, 5_000_000]) if rng.random() < 0.05 else b"\x00\xff")
    if kind == 11:
        return good.replace(b"}", b', "tools": [' + b'{"type": "function"},' * 200 + b"null]}", 1)
    at = rng.randrange(len(good))
    return good[:at] + rng.randbytes(1) + good[at + 1 :]


def odd_request(rng: random.Random) -> Odd:
    path = rng.choice(_PATHS) if rng.random() < 0.9 else rng.choice(_OTHER_PATHS)
    body = odd_body(rng, BODIES.get(path, CHAT))
    length, complete, extra = b"%d" % len(body), True, b""
    kind = rng.randrange(18)
    if kind == 0:
        length, complete = b"%d" % (len(body) + rng.randrange(1, 1000)), False
    elif kind == 1:
        length = b"%d" % max(0, len(body) - rng.randrange(1, 50))
    elif kind == 2:
        extra = b"".join(b"x-flood-%d: %s\r\n" % (n, b"y" * 100) for n in range(rng.randrange(1, 600)))
    elif kind == 3:
        extra = b"content-length: 7\r\n"
    elif kind == 4:
        extra, complete = b"transfer-encoding: chunked\r\n", False
    elif kind == 5:
        extra = b"x-request-timeout: " + rng.choice([b"-1", b"nan", b"inf", b"0", b"x", b"1e-999", b"\xff"]) + b"\r\n"
    elif kind == 6:
        extra = b"x-wattgate-priority: " + rng.randbytes(4).hex().encode() + b"\r\n"
    elif kind == 7:
        extra = b"x-request-id: " + b"z" * 5000 + b"\r\n"
    elif kind == 8:
        said = rng.choice([b"Bearer", b"Bearer \xff\xfe", b"Basic e30=", b"Bearer " * 99])
        extra = b"authorization: " + said + b"\r\n"
    elif kind == 9:
        extra = b"cache-control: " + rng.choice([b"max-age=99999999999999999999", b"max-age=x", b",,=,"]) + b"\r\n"
    elif kind == 10:
        extra = rng.choice([b"x-nul: a\x00b\r\n", b"no colon\r\n", b" folded\r\n", b": nameless\r\n", b"\xff: x\r\n"])
    elif kind == 11:
        length, complete = rng.choice([b"-1", b"1e3", b"99999999999999999999", b"0x10", b""]), False
    elif kind == 12:
        extra = rng.choice([b"expect: 100-continue\r\n", b"upgrade: websocket\r\nconnection: upgrade\r\n"])
        complete = False
    elif kind == 13:
        extra = b"content-encoding: gzip\r\n"
    elif kind == 14:
        extra = b"traceparent: 00-" + rng.randbytes(20).hex().encode() + b"-zz\r\n"
    method = rng.choice([b"POST"] * 12 + [b"GET", b"DELETE", b"BREW", b"OPTIONS", b"HEAD", b"post"])
    version = rng.choice([b"HTTP/1.1"] * 20 + [b"HTTP/1.0", b"HTTP/9.9", b""])
    kind_of_body = b"multipart/form-data; boundary=b" if path == b"/v1/files" else b"application/json"
    head = b"%s %s %s\r\nhost: h\r\ncontent-type: %s\r\n" % (method, path, version, kind_of_body)
    return Odd(head + b"content-length: " + length + b"\r\n" + extra + b"connection: close\r\n\r\n" + body, complete)
