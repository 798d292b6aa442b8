from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.identity import (
    CHAT_PATH,
    COMPLETIONS_PATH,
    UNRELATED_FIELDS,
    Address,
    Epochs,
    Identity,
    TenantHasher,
    canonical,
    identify,
)

CHAT = {
    "model": "alias",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Capital of France?"}],
    "temperature": 0.2,
    "max_tokens": 50,
}


def of(payload: dict[str, Any] | None = None, **changes: Any) -> Identity:
    place: dict[str, Any] = {"tenant": "t", "path": CHAT_PATH, "model": "m", "variants": ("m@1",)}
    return identify(payload=CHAT if payload is None else payload, **{**place, **changes})


START = Epochs()


def address(*args: Any, epochs: Epochs = START, **changes: Any) -> Address:
    return of(*args, **changes).address(epochs)


def asking(text: Any, **changes: Any) -> dict[str, Any]:
    return {**CHAT, "messages": [CHAT["messages"][0], {"role": "user", "content": text}], **changes}


@pytest.mark.parametrize("field", sorted(UNRELATED_FIELDS))
def test_fields_that_do_not_change_the_answer_do_not_change_the_key(field: str) -> None:
    assert address({**CHAT, field: "anything"}) == address()


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.3},
        {"seed": 1},
        {"max_tokens": 51},
        {"stop": ["\n"]},
        {"n": 2},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"tool_choice": "none"},
        {"response_format": {"type": "json_object"}},
        {"top_p": 0.5},
        {"logit_bias": {"1": 2}},
        {"something_new": 1},
        {"cache_salt": "mine"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_other_field_separates_both_tiers(change: dict[str, Any]) -> None:
    assert address({**CHAT, **change}).exact != address().exact
    assert address({**CHAT, **change}).partition != address().partition


@pytest.mark.parametrize(
    "change",
    [{"tenant": "u"}, {"model": "n"}, {"variants": ("m@2",)}, {"variants": ("m@1", "m-int8@1")}],
    ids=["tenant", "model", "revision", "variants"],
)
def test_tenant_model_and_variants_separate_both_tiers(change: dict[str, Any]) -> None:
    assert address(**change).exact != address().exact
    assert address(**change).partition != address().partition


@pytest.mark.parametrize("epochs", [Epochs(1), Epochs(0, 1), Epochs(0, 0, 1)])
def test_an_epoch_empties_its_scope(epochs: Epochs) -> None:
    assert address(epochs=epochs).exact != address().exact
    assert address(epochs=epochs).partition != address().partition


def test_the_local_epoch_is_not_part_of_a_key() -> None:
    assert address(epochs=Epochs(local=7)) == address()


def test_order_of_fields_and_of_variants_does_not_matter() -> None:
    shuffled = {name: CHAT[name] for name in reversed(list(CHAT))}
    assert address(shuffled, variants=("b@1", "a@1")) == address(variants=("a@1", "b@1", "a@1"))


def test_one_number_has_one_key_but_true_is_not_one() -> None:
    assert address({**CHAT, "temperature": 1.0}) == address({**CHAT, "temperature": 1})
    assert address({**CHAT, "x": True}) != address({**CHAT, "x": 1})


def test_numbers_within_a_field_have_one_key_save_where_a_model_reads_them() -> None:
    assert address({**CHAT, "logit_bias": {"5": 1.0}}) == address({**CHAT, "logit_bias": {"5": 1}})
    assert address({**CHAT, "logit_bias": {"5": 1.5}}) != address({**CHAT, "logit_bias": {"5": 1}})
    assert address({**CHAT, "stop": [[1.0]]}) == address({**CHAT, "stop": [[1]]})
    one, other = ({"parameters": {"default": number}} for number in (1, 1.0))
    assert address({**CHAT, "tools": [one]}) != address({**CHAT, "tools": [other]})


def test_null_is_as_good_as_absent() -> None:
    assert address({**CHAT, "presence_penalty": None, "tools": None}) == address()
    system, user = CHAT["messages"]
    assert address({**CHAT, "messages": [system, {**user, "name": None}]}) == address()
    schema = {"type": "json_schema", "json_schema": {"const": None}}
    assert address({**CHAT, "response_format": schema}) != address(
        {**CHAT, "response_format": {**schema, "json_schema": {}}}
    )


def test_one_part_of_text_is_the_text() -> None:
    parted = [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in CHAT["messages"]]
    assert address({**CHAT, "messages": parted}) == address()
    assert of({**CHAT, "messages": parted}).text == "Capital of France?"
    two = [{"type": "text", "text": "Capital of "}, {"type": "text", "text": "France?"}]
    assert address({**CHAT, "messages": [CHAT["messages"][0], {"role": "user", "content": two}]}) != address()


def test_fields_nested_too_deeply_to_walk_have_a_key() -> None:
    deep: Any = 1.0
    for _ in range(900):
        deep = [deep]
    assert address({**CHAT, "x": deep}) != address()


def test_only_the_last_user_text_may_differ_within_a_partition() -> None:
    other = of(asking("Capital of Spain?"))
    assert other.address(Epochs()).partition == address().partition
    assert other.address(Epochs()).exact != address().exact
    assert (of().text, other.text) == ("Capital of France?", "Capital of Spain?")


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": "Be long."}, CHAT["messages"][1]],
        [CHAT["messages"][1]],
        [{"role": "developer", "content": "Be brief."}, CHAT["messages"][1]],
        [*CHAT["messages"], {"role": "assistant", "content": "Paris"}, CHAT["messages"][1]],
        [CHAT["messages"][0], {**CHAT["messages"][1], "name": "bob"}],
        [CHAT["messages"][0], {"role": "user", "content": [{"type": "text", "text": "Capital of France?", "x": 1}]}],
    ],
    ids=["system", "no system", "developer", "history", "name", "form"],
)
def test_history_instructions_and_form_separate_partitions(messages: list[Any]) -> None:
    assert address({**CHAT, "messages": messages}).partition != address().partition


def test_a_text_equal_to_the_placeholder_shares_the_partition_and_no_key() -> None:
    strange = address(asking("\N{OBJECT REPLACEMENT CHARACTER}"))
    assert strange.partition == address().partition
    assert strange.exact != address().exact


@pytest.mark.parametrize(
    ("messages", "conversation"),
    [
        (["user"], False),
        (["system", "user"], False),
        (["system", "developer", "user"], False),
        (["user", "assistant", "user"], True),
        (["system", "user", "user"], True),
        (["tool", "user"], True),
    ],
)
def test_a_history_is_recognised(messages: list[str], conversation: bool) -> None:
    payload = {"messages": [{"role": role, "content": "x"} for role in messages]}
    assert of(payload).conversation is conversation


@pytest.mark.parametrize(
    ("path", "payload"),
    [
        (COMPLETIONS_PATH, {"prompt": "Once upon"}),
        (CHAT_PATH, {"messages": []}),
        (CHAT_PATH, {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}),
        (CHAT_PATH, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}),
        (CHAT_PATH, {"messages": [{"role": "user", "content": 2 * [{"type": "text", "text": "a"}]}]}),
        (CHAT_PATH, {"messages": [{"role": "user", "content": None}]}),
        (CHAT_PATH, {"messages": ["user"]}),
    ],
)
def test_without_a_last_user_text_an_entry_is_alone(path: str, payload: dict[str, Any]) -> None:
    identity = of(payload, path=path)
    assert identity.text is None
    other = of({**payload, "max_tokens": 1}, path=path)
    assert identity.address(Epochs()).partition != other.address(Epochs()).partition


def test_composed_and_decomposed_text_have_keys_of_their_own_and_one_text_to_compare() -> None:
    composed, decomposed = of(asking("café")), of(asking("cafe\u0301"))
    assert composed.exact_digest != decomposed.exact_digest
    assert composed.text == decomposed.text


def test_identifying_changes_nothing_in_the_payload() -> None:
    payload = copy.deepcopy(CHAT)
    of(payload)
    assert payload == CHAT


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=6))
def test_canonical_bytes_do_not_depend_on_order(value: dict[str, Any]) -> None:
    assert canonical(value) == canonical(dict(reversed(list(value.items()))))


@given(json_values, json_values)
def test_different_values_have_different_bytes(one: Any, other: Any) -> None:
    if canonical(one) == canonical(other):
        assert one == other


def test_integers_beyond_64_bits_and_lone_surrogates_have_keys() -> None:
    assert address({**CHAT, "seed": 2**70}) != address({**CHAT, "seed": 2**71})
    assert address(asking("\ud800")) != address(asking("\ud801"))


@given(st.text(), st.text())
def test_texts_never_share_an_exact_key(one: str, other: str) -> None:
    assert (address(asking(one)) == address(asking(other))) == (one == other)


@given(st.text(alphabet=st.characters(codec=None), max_size=20))
def test_any_tenant_name_is_hashed(tenant: str) -> None:
    hasher = TenantHasher(b"0123456789abcdef")
    assert len(hasher(tenant)) == 32
    assert hasher(tenant) == TenantHasher(b"0123456789abcdef")(tenant)


def test_tenant_keys_depend_on_the_secret() -> None:
    assert TenantHasher(b"0123456789abcdef")("t") != TenantHasher(b"0123456789abcdeg")("t")


def test_a_short_secret_is_refused_with_the_mend() -> None:
    with pytest.raises(ValueError, match="openssl rand"):
        TenantHasher(b"short")


def test_cache_ids_parse_back() -> None:
    assert Address.parse(address().cache_id) == address()


@pytest.mark.parametrize("bad", ["", "-", "a-b", "../../x", address().cache_id + "0", address().cache_id.upper()])
def test_a_malformed_cache_id_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="cache id"):
        Address.parse(bad)


def test_epochs_never_go_back() -> None:
    assert Epochs(3, 1, 0, 2).latest(Epochs(0, 2, 5, 1)) == Epochs(3, 2, 5, 2)
