"""A configuration that may be kept or shown: without its secrets, those in an address included."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr


def without_secrets(values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What ``model_dump()`` gave without its secrets, and their keys. Not of JSON's mode, which writes a secret as
    asterisks: they would be read back as the secret.
    """
    left_out: list[str] = []
    opened: dict[str, Any] = _open(values, "", left_out)
    return opened, left_out


def address_alone(url: str) -> str:
    """Without its user and password."""
    return _without_credentials(url, "", [])


def _open(value: Any, key: str, left_out: list[str]) -> Any:
    """``value`` without secrets; an empty section stands for one that held nothing else."""
    if isinstance(value, dict):
        found = {}
        for name, item in value.items():
            below = f"{key}.{name}" if key else str(name)
            if isinstance(item, SecretStr):
                left_out.append(below)
                continue
            opened = _open(item, below, left_out)
            if opened != {} or item == {}:
                found[name] = opened
        return found
    if isinstance(value, list | tuple):
        return [_open(item, key, left_out) for item in value]
    return _without_credentials(value, key, left_out) if isinstance(value, str) else value


def _without_credentials(text: str, key: str, left_out: list[str]) -> str:
    """An address without its user and password."""
    try:
        address = urlsplit(text)
    except ValueError:
        return text
    if not address.scheme or "@" not in address.netloc:
        return text
    left_out.append(f"{key} (its user and password)")
    return address._replace(netloc=address.netloc.rpartition("@")[2]).geturl()
