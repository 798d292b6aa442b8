"""The recommended configuration as a file for ``wattgate serve``: without a secret in it, and saying what it lacks."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr
from pydantic_core import to_jsonable_python

from serving.config import GatewayConfig


def recommended_yaml(config: GatewayConfig, why: str) -> tuple[str, tuple[str, ...]]:
    """What differs from the defaults, and the keys of the secrets that were left out: they are to be given again."""
    import yaml

    left_out: list[str] = []
    # not in JSON's mode: that writes a secret as asterisks, which would be read back as the secret
    values = _open(config.model_dump(exclude_defaults=True), "", left_out)
    kept = {section: content for section, content in to_jsonable_python(values).items() if content}
    comment = why.splitlines()
    if left_out:
        comment.append(f"Left out, give again (environment or --config): {', '.join(left_out)}")
    lines = "".join(f"# {line}\n" for line in comment)
    return lines + yaml.safe_dump(kept, sort_keys=False), tuple(left_out)


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
