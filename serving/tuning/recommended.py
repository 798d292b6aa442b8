"""The recommended configuration as a file for ``wattgate serve``: without a secret in it, and saying what it lacks."""

from __future__ import annotations

from pydantic_core import to_jsonable_python

from serving.config import GatewayConfig
from serving.without_secrets import without_secrets


def recommended_yaml(config: GatewayConfig, why: str) -> tuple[str, tuple[str, ...]]:
    """What differs from the defaults, and the keys of the secrets that were left out: they are to be given again."""
    import yaml

    values, left_out = without_secrets(config.model_dump(exclude_defaults=True))
    kept = {section: content for section, content in to_jsonable_python(values).items() if content}
    comment = why.splitlines()
    if left_out:
        comment.append(f"Left out, give again (environment or --config): {', '.join(left_out)}")
    lines = "".join(f"# {line}\n" for line in comment)
    return lines + yaml.safe_dump(kept, sort_keys=False), tuple(left_out)
