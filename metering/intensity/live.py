"""Reading the answers of live sources: what is null, malformed or impossible is unavailable, never zero."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from metering.intensity.reading import IntensityUnavailable

if TYPE_CHECKING:
    import httpx


async def get_json(
    client: httpx.AsyncClient,
    url: str,
    *,
    source: str,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    auth: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """The JSON object at ``url``.

    Raises:
        IntensityUnavailable: unreachable, timed out, refused, or not a JSON object. The message holds the status,
            never the credentials nor the query.
        Unauthorised: status 401.
    """
    import httpx

    try:
        answer = await client.get(
            url, params=params, headers=headers, auth=httpx.USE_CLIENT_DEFAULT if auth is None else auth
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise IntensityUnavailable(f"{source} is unreachable ({type(error).__name__})") from error
    if answer.status_code == 401:
        raise Unauthorised(f"{source} refused the credentials (401)")
    if answer.status_code != 200:
        raise IntensityUnavailable(f"{source} answered {answer.status_code}")
    try:
        content = answer.json()
    except ValueError as error:
        raise IntensityUnavailable(f"{source} answered something that is not JSON") from error
    if not isinstance(content, dict):
        raise IntensityUnavailable(f"{source} answered JSON that is not an object")
    return content


class Unauthorised(IntensityUnavailable):
    """The credentials or the token were refused."""


def number(value: Any, *, source: str, name: str) -> float:
    """A figure of at least 0.

    Raises:
        IntensityUnavailable: null, not a number, negative or not finite.
    """
    if value is None:
        raise IntensityUnavailable(f"{source} has no {name} now (null)")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise IntensityUnavailable(f"{source} gave {value!r} as {name}")
    return float(value)


def moment(value: Any, *, source: str) -> datetime:
    """An ISO 8601 time in UTC; seconds may be missing, and a time without zone is UTC.

    Raises:
        IntensityUnavailable: not such a time.
    """
    try:
        parsed = datetime.fromisoformat(str(value))
    except ValueError as error:
        raise IntensityUnavailable(f"{source} gave {value!r} as a time") from error
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


def rows(content: Mapping[str, Any], key: str, *, source: str) -> list[Mapping[str, Any]]:
    """The list of objects under ``key``.

    Raises:
        IntensityUnavailable: absent, empty, or not a list of objects.
    """
    found = content.get(key)
    if not isinstance(found, list) or not found or not all(isinstance(row, Mapping) for row in found):
        raise IntensityUnavailable(f"{source} answered without {key}")
    return found
