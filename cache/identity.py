"""What makes two requests the same: the exact key, and the partition within which only the last user text differs."""

from __future__ import annotations

import hashlib
import hmac
import json
import unicodedata
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

CHAT_PATH = "/v1/chat/completions"
COMPLETIONS_PATH = "/v1/completions"

UNRELATED_FIELDS = frozenset(
    {
        "stream", "stream_options", "user", "metadata", "store", "service_tier",
        "prompt_cache_key", "safety_identifier", "request_id", "priority",
        # The resolved model and the allowed variants stand for the name that the client wrote.
        "model",
    }
)  # fmt: skip
"""Fields of an OpenAI request that do not change the answer (OpenAI API reference; vLLM protocol for the last two)."""

PLACEHOLDER = "\N{OBJECT REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class Scopes:
    """Names of the three epochs that a request lives under: all entries, its model's, its tenant's."""

    model: str
    tenant: str

    @property
    def fields(self) -> tuple[str, str, str]:
        return ("*", f"m:{self.model}", f"t:{self.tenant}")


@dataclass(frozen=True, slots=True)
class Epochs:
    """Counters that only grow; every key holds them, so one increment empties its scope."""

    everything: int = 0
    model: int = 0
    tenant: int = 0
    local: int = 0
    """Not part of any key: grows when one entry was removed, so that in-process tiers forget it too."""

    @property
    def in_key(self) -> bytes:
        return b"%d.%d.%d" % (self.everything, self.model, self.tenant)

    def latest(self, other: Epochs) -> Epochs:
        """Field by field the greater: a store that lost its counters never brings old entries back."""
        return Epochs(
            max(self.everything, other.everything),
            max(self.model, other.model),
            max(self.tenant, other.tenant),
            max(self.local, other.local),
        )


@dataclass(frozen=True, slots=True)
class Address:
    """Where an entry lives. ``partition`` is the hash tag of all its keys: one slot, one node."""

    partition: str
    """32 hex digits."""
    exact: str
    """64 hex digits."""

    @property
    def cache_id(self) -> str:
        return f"{self.partition}-{self.exact}"

    @classmethod
    def parse(cls, cache_id: str) -> Address:
        """Raises ValueError naming the form expected."""
        partition, _, exact = cache_id.partition("-")
        hexadecimal = set("0123456789abcdef")
        if len(partition) != 32 or len(exact) != 64 or not hexadecimal.issuperset(partition + exact):
            raise ValueError("cache id: expected the value of an x-cache-id header (32 hex digits, '-', 64 hex digits)")
        return cls(partition, exact)


@dataclass(frozen=True, slots=True)
class Identity:
    """A request's identity before its epochs are known."""

    tenant: str
    """Keyed hash of the tenant, 32 hex digits."""
    scopes: Scopes
    exact_digest: bytes
    partition_digest: bytes
    text: str | None
    """Last user text, NFC, where everything else can be compared by equality; None: exact tier only."""
    conversation: bool
    """Something other than instructions and the last user text is in the request."""

    def address(self, epochs: Epochs) -> Address:
        epoch = epochs.in_key
        return Address(
            partition=hashlib.sha256(self.partition_digest + epoch).hexdigest()[:32],
            exact=hashlib.sha256(self.exact_digest + epoch).hexdigest(),
        )


LEAST_SECRET_BYTES = 16


class TenantHasher:
    """HMAC-SHA256 of the tenant: keys tell nothing about it and cannot be computed without the secret."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < LEAST_SECRET_BYTES:
            raise ValueError(
                f"cache secret: at least {LEAST_SECRET_BYTES} bytes are needed: `openssl rand -hex 32` makes one"
            )
        self._secret = secret
        self._known: OrderedDict[str, str] = OrderedDict()

    def __call__(self, tenant: str) -> str:
        digest = self._known.get(tenant)
        if digest is None:
            message = b"tenant\0" + tenant.encode("utf-8", "surrogatepass")
            digest = hmac.new(self._secret, message, hashlib.sha256).hexdigest()[:32]
            self._known[tenant] = digest
            if len(self._known) > 10_000:
                self._known.popitem(last=False)
        return digest


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces, UTF-8. Equal values give equal bytes; 1 and true stay apart."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        # Integers beyond 64 bits and lone surrogates, which the JSON text may well have held.
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def identify(
    *,
    tenant: str,
    path: str,
    payload: Mapping[str, Any],
    model: str,
    variants: Sequence[str],
) -> Identity:
    """Identity of a request. ``tenant`` is the keyed hash, ``variants`` the allowed ``name@revision`` in any order."""
    body = {
        name: _messages(value) if name == "messages" else value if name in _READ_BY_THE_MODEL else _numbers(value)
        for name, value in payload.items()
        if name not in UNRELATED_FIELDS and value is not None
    }
    place = {"tenant": tenant, "path": path, "model": model, "variants": sorted(set(variants))}
    exact = hashlib.sha256(b"exact\0" + canonical({**place, "body": body})).digest()
    scopes = Scopes(model=model, tenant=tenant)
    split = _split(path, body)
    if split is None:
        # No text to compare: the entry is alone in a partition of its own.
        alone = hashlib.sha256(b"alone\0" + exact).digest()
        return Identity(tenant, scopes, exact, alone, None, conversation=False)
    text, rest, conversation = split
    partition = hashlib.sha256(b"partition\0" + canonical({**place, "body": rest})).digest()
    return Identity(tenant, scopes, exact, partition, unicodedata.normalize("NFC", text), conversation)


_READ_BY_THE_MODEL = frozenset({"prompt", "tools", "functions", "documents", "chat_template_kwargs"})
"""Fields that a chat template writes out: there 1.0 is another text than 1, and null another than nothing."""
_DEEPEST = 50
"""Levels below which a value is taken as it is: what follows could be nested as deeply as a client likes."""


def _numbers(value: Any, levels: int = _DEEPEST) -> Any:
    """1.0 and 1 are one JSON number."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, dict) and levels:
        return {name: _numbers(inner, levels - 1) for name, inner in value.items()}
    if isinstance(value, list) and levels:
        return [_numbers(inner, levels - 1) for inner in value]
    return value


def _messages(messages: Any) -> Any:
    """A field that is null is not there, and one part of text is the text: a model is given the same."""
    if not isinstance(messages, list):
        return messages
    return [
        {name: _content(value) if name == "content" else value for name, value in message.items() if value is not None}
        if isinstance(message, dict)
        else message
        for message in messages
    ]


def _content(content: Any) -> Any:
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        part = content[0]
        if part.keys() == {"type", "text"} and part["type"] == "text" and isinstance(part["text"], str):
            return part["text"]
    return content


def _split(path: str, body: dict[str, Any]) -> tuple[str, dict[str, Any], bool] | None:
    """(last user text, the body with a placeholder in its stead, whether there is a history)."""
    messages = body.get("messages")
    if path != CHAT_PATH or not isinstance(messages, list) or not messages:
        return None
    last = messages[-1]
    if not isinstance(last, dict) or last.get("role") != "user":
        return None
    content = last.get("content")
    replaced: Any
    if isinstance(content, str):
        text, replaced = content, PLACEHOLDER
    elif isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        part = content[0]
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            return None
        text, replaced = part["text"], [{**part, "text": PLACEHOLDER}]
    else:
        return None
    history = messages[:-1]
    conversation = any(
        not isinstance(message, dict) or message.get("role") not in ("system", "developer") for message in history
    )
    return text, {**body, "messages": [*history, {**last, "content": replaced}]}, conversation
