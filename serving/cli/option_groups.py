"""Options that several commands have in common: declared once, as a dataclass, and spread into their signatures."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """The command as typer sees it: a parameter whose default is a dataclass becomes that dataclass's fields, with its
    values for defaults; the command gets them back as one.
    """
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, type] = {}
    seen: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        group = parameter.default
        if not is_dataclass(group) or isinstance(group, type):
            seen.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        groups[parameter.name] = type(group)
        hints = get_type_hints(type(group), include_extras=True)
        seen += [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=getattr(group, field.name),
                annotation=hints[field.name],
            )
            for field in fields(group)
        ]

    @functools.wraps(command)
    def spread_out(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    shown = signature.replace(parameters=seen)
    spread_out.__signature__ = shown  # type: ignore[attr-defined]  # inspect reads it
    spread_out.__annotations__ = {parameter.name: parameter.annotation for parameter in seen}
    return spread_out
