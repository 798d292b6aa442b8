"""What a configuration that is read again changes at once, and what of it waits for a restart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, SecretStr

from serving.config import GatewayConfig

Key = tuple[str, ...]

_LIVE: frozenset[Key] = frozenset({("admission",), ("control",), ("access", "tenants"), ("access", "default_tenant")})
_NOT_THERE = object()
_WHY = {
    "models": "models come, go and change by a restart: the gateway's queues and the node's power meter are made for "
    "those that it started with"
}
"""By section, where the key alone leaves a question."""
_EACH_FOR_ITSELF = (
    "until a restart each replica counts the tenants' limits for itself: this gateway started without a Redis for them"
)


def is_live(key: Key) -> bool:
    """Whether running replicas take the setting over; also of whatever lies below it."""
    of_a_model = len(key) > 2 and key[0] == "models" and key[2] == "admission"
    return of_a_model or any(key[: len(live)] == live for live in _LIVE)


def with_live(running: GatewayConfig, asked: GatewayConfig) -> GatewayConfig:
    """``running``, with the live settings of ``asked``."""
    access = running.access.model_copy(
        update={"tenants": asked.access.tenants, "default_tenant": asked.access.default_tenant}
    )
    models = {
        name: model.model_copy(update={"admission": asked.models[name].admission}) if name in asked.models else model
        for name, model in running.models.items()
    }
    live = {"admission": asked.admission, "control": asked.control, "access": access, "models": models}
    return running.model_copy(update=live)


@dataclass(frozen=True, slots=True)
class Change:
    key: Key
    text: str
    """Without what is secret."""

    def __str__(self) -> str:
        return f"{'.'.join(self.key)} {self.text}"


def differences(before: object, after: object, key: Key = ()) -> Iterator[Change]:
    """Setting by setting; a whole entry that came or went is one."""
    if isinstance(before, BaseModel) and type(before) is type(after):
        for name in type(before).model_fields:
            yield from differences(getattr(before, name), getattr(after, name), (*key, name))
    elif isinstance(before, dict) and isinstance(after, dict):
        for name in sorted({*before, *after}):
            yield from differences(before.get(name, _NOT_THERE), after.get(name, _NOT_THERE), (*key, str(name)))
    elif before is _NOT_THERE:
        yield Change(key, "is new")
    elif after is _NOT_THERE:
        yield Change(key, "is gone")
    elif before != after:
        hidden = any(isinstance(value, SecretStr | BaseModel | dict) for value in (before, after))
        yield Change(key, "is another" if hidden else f"{_plain(before)} -> {_plain(after)}")


def told(before: GatewayConfig, asked: GatewayConfig, *, accounts_shared: bool = True) -> list[str]:
    """What a reload comes to, in lines; ``before``: what was asked for last, as far as it was applied.

    ``accounts_shared``: whether a Redis keeps what tenants use, for all replicas.
    """
    found = list(differences(before, asked))
    live = [change for change in found if is_live(change.key)]
    lines = [f"applied: {', '.join(map(str, live))}"] if live else []
    if asked.access.limited and not accounts_shared and any(change.key[0] == "access" for change in live):
        lines.append(_EACH_FOR_ITSELF)
    for section in dict.fromkeys(change.key[0] for change in found if not is_live(change.key)):
        late = [str(change) for change in found if change.key[0] == section and not is_live(change.key)]
        why = _WHY.get(section, "it takes a restart")
        lines.append(f"not applied: {', '.join(late)}: {why}")
    return lines or ["nothing has changed"]


def _plain(value: Any) -> str:
    return "none" if value is None else str(value)
