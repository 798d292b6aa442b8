"""A prompt's text for the log: its beginning, with what names people and opens doors replaced by its kind.

By patterns: they err on the side of replacing (a long number is taken for a telephone's), and still know no names,
postal addresses or secrets told in plain prose. Whoever keeps such a log keeps personal data.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any

LONGEST_CHARACTERS = 2_000
"""Of the prompt, counted before anything is replaced: enough to see what was asked, little enough for a log's line."""
_AHEAD_CHARACTERS = 512
"""Read beyond the cut, so that what begins before it is known for what it is; longer than the keys in common use."""
_LEAST_PHONE_DIGITS = 9
"""Of a national number with its area; a date has eight."""
_LEAST_INTERNATIONAL_DIGITS = 7
"""After a plus sign."""
_CARD_DIGITS = range(12, 20)
"""ISO/IEC 7812: the number of a payment card has at most 19 digits; 12 are the fewest in use."""

_FOUND = re.compile(
    r"""
      (?P<email>(?<![\w.+%-])[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+)
    | (?P<key>
        -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----[\s\S]*?(?:-----END\ [A-Z ]*PRIVATE\ KEY-----|\Z)
      | (?<!\w)(?i:bearer)\s+[\w.~+/-]{8,}=*
      | (?<![A-Za-z0-9])(?i:password|passwd|pwd|secret|api[_-]?key|(?:access|auth)[_-]?token)["']?\s*[:=]\s*\S+
      | (?<![\w-])(?:sk|pk|rk|wg)[-_][\w-]{8,}
      | (?<![\w-])(?:gh[opsur]_|github_pat_|glpat-|hf_|xox[a-z]-|AKIA|ASIA|AIza)[\w-]{8,}
      | (?<![\w-])eyJ[\w-]{6,}(?:\.[\w-]*){1,4}
      | (?<!\w)[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}(?!\w)
      # hexadecimal, base32 and base62, then base64 with its signs: words and paths lack a digit or a change of case
      | (?<![A-Za-z0-9])(?=[A-Za-z]{0,64}[0-9])[A-Za-z0-9]{24,}[\w+/=-]*
      | (?<![\w+/-])(?=[a-z0-9+/_-]{0,64}[A-Z])(?=[A-Z0-9+/_-]{0,64}[a-z])(?=[A-Za-z+/_-]{0,64}[0-9])[\w+/-]{32,}=*
      )
    | (?P<ip>
        (?<![\w.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?!\w)
      | (?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,8}(?:(?:\.[0-9]{1,3}){3})?(?![\w:])
      )
    | (?P<number>(?<!\w)(?:\+\ ?)?\(?\d(?:[ \t\u00a0().\-/]{0,3}\d){5,24}(?!\w))
    """,
    re.VERBOSE,
)


def redacted(text: str, longest: int = LONGEST_CHARACTERS) -> str:
    """The first ``longest`` characters, with ``[email]``, ``[key]``, ``[ip]``, ``[card]`` and ``[phone]`` in them."""
    parts: list[str] = []
    position = 0
    for found in _FOUND.finditer(text[: longest + _AHEAD_CHARACTERS]):
        if found.start() >= longest:
            break
        kind = _kind(found)
        if kind is not None:
            parts += [text[position : found.start()], f"[{kind}]"]
            position = found.end()
    parts.append(text[position:longest])
    return "".join(parts) + ("..." if len(text) > max(position, longest) else "")


def _kind(found: re.Match[str]) -> str | None:
    """None for what only looked like it."""
    kind, text = found.lastgroup, found.group()
    if kind == "ip":
        return kind if _is_address(text) else None
    if kind == "number":
        digits = [int(character) for character in text if character.isdecimal()]
        if len(digits) in _CARD_DIGITS and _luhn(digits):
            return "card"
        least = _LEAST_INTERNATIONAL_DIGITS if text.startswith("+") else _LEAST_PHONE_DIGITS
        return "phone" if len(digits) >= least else None
    return kind


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    # two colons alone are an address to the library, and punctuation to whoever writes code
    return text != "::"


def _luhn(digits: list[int]) -> bool:
    """The check digit of card numbers, ISO/IEC 7812-1 annex B."""
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def prompt_text(payload: Mapping[str, Any], longest: int = LONGEST_CHARACTERS + _AHEAD_CHARACTERS) -> str:
    """The beginning of what a request of any endpoint asks, a line for each text in it; token ids are no text."""
    lines: list[str] = []
    room = longest
    for text in _texts(payload):
        lines.append(text[:room])
        room -= len(lines[-1]) + 1
        if room <= 0:
            break
    return "\n".join(lines)


def _texts(payload: Mapping[str, Any]) -> Iterator[str]:
    # last first on the stack, which a client may nest deeper than calls can go
    rest: list[Any] = [payload.get(name) for name in ("input", "prompt", "messages", "instructions")]
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            rest += reversed(value)
        elif isinstance(value, dict):
            # of a message its content, of a part of it its text; an image's data is no text
            rest += (value.get("text"), value.get("content"))
