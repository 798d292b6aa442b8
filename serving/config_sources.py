"""Where a configuration comes from: defaults, the YAML file, environment, flags; and what is wrong in it, by line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from serving.config import ConfigError, GatewayConfig


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    config: GatewayConfig
    sources: Mapping[str, str]
    """Dotted key to where its value came from; keys that are not here have their default."""


_ENVIRONMENT = {
    "WATTGATE_REDIS_URL": "cache.redis",
    "WATTGATE_LIMITS_REDIS_URL": "limits.redis",
    "WATTGATE_CACHE_SECRET": "cache.tenant_secret",
    "WATTGATE_UPSTREAM_URL": "engine.upstream.url",
    "WATTGATE_UPSTREAM_API_KEY": "engine.upstream.api_key",
    "WATTGATE_API_KEYS": "access.api_keys",
    "WATTGATE_ADMIN_KEY": "access.admin_key",
    "WATTGATE_INTENSITY_TOKEN": "metering.intensity.token",
}
"""Secrets and endpoints only; everything else is in the file where it can be reviewed."""


def load_config(
    path: Path | None, flags: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None
) -> LoadedConfig:
    """Merge the sources and validate.

    ``flags`` maps dotted keys to values; None values are left out.

    Raises:
        ConfigError: unreadable file, unknown key (with its line), wrong value, contradiction.
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    lines: dict[str, int] = {}
    if path is not None:
        values, lines = _read_yaml(path)
        sources |= {key: f"{path}:{line}" for key, line in lines.items()}
    for name, key in _ENVIRONMENT.items():
        if raw := (os.environ if environment is None else environment).get(name):
            _set(values, key, _parse_api_keys(raw) if name == "WATTGATE_API_KEYS" else raw)
            sources[key] = f"environment {name}"
    for key, value in (flags or {}).items():
        if value is not None:
            _set(values, key, value)
            sources[key] = "command line"
    try:
        return LoadedConfig(GatewayConfig.model_validate(values), sources)
    except ValidationError as error:
        raise ConfigError(_one_line(error, path, lines)) from None


def _parse_api_keys(raw: str) -> dict[str, str]:
    out = {}
    for part in raw.split(","):
        tenant, sep, key = part.strip().partition("=")
        if not sep or not tenant or not key:
            raise ConfigError("WATTGATE_API_KEYS must look like tenant=key,tenant=key")
        out[tenant] = key
    return out


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        if not isinstance(values.get(parent), dict):
            values[parent] = {}
        values = values[parent]
    values[last] = value


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the config file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: not YAML: {error.problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{path}:{line}: not YAML: {error.reason} (character {error.character:#x})") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}, {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}:1: expected sections ({', '.join(GatewayConfig.model_fields)}), found a value")
    return values, dict(_key_lines(root, ""))


def _key_lines(node: yaml.Node | None, prefix: str) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            key = f"{prefix}{key_node.value}"
            yield key, key_node.start_mark.line + 1
            yield from _key_lines(value_node, key + ".")


_TLS = re.compile(r"(^|[._])(tls|ssl|https|cert|certificate)s?([._]|$)", re.IGNORECASE)


def _one_line(error: ValidationError, path: Path | None, lines: Mapping[str, int]) -> str:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    where = f"{path}:{lines[key]}: " if path is not None and key in lines else ""
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        if _TLS.search(key):
            return (
                f"{where}unknown key {key}: the gateway speaks plain HTTP and leaves TLS to the ingress in front of it "
                f"(a load balancer, a Kubernetes Ingress, nginx, Caddy){more}"
            )
        known = _known_keys(first["loc"][:-1])
        import difflib

        close = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        hint = f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"
        return f"{where}unknown key {key}{hint}{more}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}{key + ': ' if key else ''}{message}{more}"


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    model: Any = GatewayConfig
    for part in location:
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            return []
        model = field.annotation
    return list(getattr(model, "model_fields", {}))
