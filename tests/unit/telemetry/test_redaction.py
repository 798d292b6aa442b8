from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.telemetry.redaction import LONGEST_CHARACTERS, prompt_text, redacted

HEX = "0123456789abcdef" * 4
CASES = {
    # e-mail
    "mail ada.l+x@mail.example.org now": "mail [email] now",
    "<jürgen@bücher.example>": "<[email]>",
    "a @ b, user@host": "a @ b, user@host",
    # cards: the check digit decides, the separators do not
    "card 4111 1111 1111 1111.": "card [card].",
    "4111-1111-1111-1111": "[card]",
    "378282246310005": "[card]",
    "4111 1111 1111 1112": "[phone]",
    # telephones
    "call +49 30 901820 or (030) 901-82012": "call [phone] or [phone]",
    "+1 (555) 123-4567": "[phone]",
    "0171/2345678": "[phone]",
    "in 2024, on 2024-05-01, 1234567 pieces": "in 2024, on 2024-05-01, 1234567 pieces",
    "10\n20\n30\n40\n50\n60": "10\n20\n30\n40\n50\n60",
    # addresses
    "from 192.168.0.1:80": "from [ip]:80",
    "2001:db8::1, ::1 and fe80::1.": "[ip], [ip] and [ip].",
    "::ffff:10.0.0.1": "[ip]",
    "at 12:30:45, 999.1.1.1, std::vector, a :: b": "at 12:30:45, 999.1.1.1, std::vector, a :: b",
    # keys and tokens
    "sk-abcdefgh12345678": "[key]",
    "key=sk-proj-AbC_123-xyz_789": "key=[key]",
    "wg-3f2a-Zm9vYmFyYmF6": "[key]",
    "ghp_abcdefghijklmnop AKIAABCDEFGHIJKLMNOP": "[key] [key]",
    "Authorization: Bearer abc.def-ghi_jkl==": "Authorization: [key]",
    "password: hunter2, next": "[key] next",
    'API_KEY="x1"': "[key]",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.sig-nature": "[key]",
    f"digest {HEX}": "digest [key]",
    "9b2d1c7e-2f64-4d0a-8f3b-1a2b3c4d5e6f": "[key]",
    "dGhpcyBpcyBhIHNlY3JldCBvZiB0aGUgdGVzdHMgMTIz/+8=": "[key]",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY----- end": "[key] end",
    "-----BEGIN PRIVATE KEY-----\nMIIB cut off": "[key]",
    "donaudampfschifffahrtsgesellschaft": "donaudampfschifffahrtsgesellschaft",
    "/home/someone/projects/2024/a-long-folder/file.txt": "/home/someone/projects/2024/a-long-folder/file.txt",
    "skeleton pk task-list": "skeleton pk task-list",
}


@pytest.mark.parametrize(("text", "expected"), CASES.items())
def test_what_names_people_or_opens_doors_is_replaced_by_its_kind(text: str, expected: str) -> None:
    assert redacted(text) == expected


def test_a_long_text_is_cut_and_says_so() -> None:
    assert redacted("word " * 1000) == ("word " * 1000)[:LONGEST_CHARACTERS] + "..."
    assert redacted("word", 4) == "word"


SECRETS = ["ada@example.org", "4111 1111 1111 1111", f"sk-{HEX}", "192.168.100.100"]


@given(st.integers(0, 30), st.sampled_from(SECRETS))
def test_the_cut_leaves_no_part_of_what_it_falls_into(before: int, secret: str) -> None:
    longest = 30
    told = redacted(f"{'.' * before} {secret} !!!", longest)
    assert re.sub(r"\[\w+\]|[.! ]", "", told) == ""


@given(st.text(max_size=300), st.integers(1, 50))
def test_any_text_can_be_redacted_and_is_no_longer_than_asked(text: str, longest: int) -> None:
    told = redacted(text, longest)
    assert len(re.sub(r"\[(email|key|ip|card|phone)\]", "", told)) <= longest + len("...")


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]}, "a\nb"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "a"},
                            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                            {"type": "text", "text": "b"},
                        ],
                    }
                ]
            },
            "a\nb",
        ),
        ({"prompt": "a"}, "a"),
        ({"prompt": ["a", "b"]}, "a\nb"),
        ({"prompt": [[1, 2], [3]]}, ""),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "b"}]}], "instructions": "a"}, "a\nb"),
        ({"input": "a", "model": "m", "user": "u"}, "a"),
        ({}, ""),
    ],
)
def test_the_text_of_a_prompt_is_found_in_every_form(payload: dict[str, object], expected: str) -> None:
    assert prompt_text(payload) == expected


def test_only_the_beginning_of_a_prompt_is_read() -> None:
    assert prompt_text({"prompt": ["abc", "def", "ghi"]}, 6) == "abc\nde"


def test_a_prompt_nested_deeper_than_calls_go_is_read() -> None:
    nested: object = "deep"
    for _ in range(5000):
        nested = {"content": [nested]}
    assert prompt_text({"messages": nested}) == "deep"
