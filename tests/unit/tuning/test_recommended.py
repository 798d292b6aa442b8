import pytest

from serving.config_sources import load_config
from serving.tuning.recommended import recommended_yaml

CONFIG = """
server: {host: 0.0.0.0}
access:
  key_file: /etc/wattgate/keys
  admin_key: admin-secret
  api_keys: {acme: tenant-secret}
  tenants: {acme: {priority: interactive}}
engine: {kind: upstream, upstream: {url: "http://us:url-secret@host:8000/v1?x=1", api_key: upstream-secret}}
fallback: {model: other, upstream: {url: "http://other:8000", api_key: fallback-secret}}
cache: {redis: "redis://user:redis-secret@cache:6379/2", tenant_secret: "0123456789abcdef0123456789abcdef-secret"}
metering: {intensity: {source: electricitymaps, zone: DE, token: grid-secret}}
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "gateway.yaml"
    path.write_text(CONFIG)
    return load_config(path, environment={}).config


def test_no_secret_is_written_and_each_is_named(config):
    text, left_out = recommended_yaml(config, "because")
    assert "secret" not in text.replace("tenant_secret", "")
    assert "**" not in text
    assert set(left_out) == {
        "access.admin_key",
        "access.api_keys.acme",
        "engine.upstream.url (its user and password)",
        "engine.upstream.api_key",
        "fallback.upstream.api_key",
        "cache.redis (its user and password)",
        "cache.tenant_secret",
        "metering.intensity.token",
    }
    assert all(name in text.splitlines()[1] for name in left_out)


def test_what_is_no_secret_is_kept_and_serve_takes_it(config, tmp_path):
    path = tmp_path / "recommended.yaml"
    path.write_text(recommended_yaml(config, "because")[0])
    read = load_config(path, environment={"WATTGATE_INTENSITY_TOKEN": "given"}).config
    assert read.access.key_file == config.access.key_file
    assert read.access.tenants == config.access.tenants
    assert read.access.api_keys == {}
    assert read.cache.redis == "redis://cache:6379/2"
    assert read.engine.upstream.url == "http://host:8000/v1?x=1"
    assert read.fallback.upstream.url == "http://other:8000"


def test_models_keys_are_left_out_too(tmp_path):
    path = tmp_path / "gateway.yaml"
    path.write_text("models: {a: {engine: {kind: upstream, upstream: {api_key: secret}}}}")
    text, left_out = recommended_yaml(load_config(path, environment={}).config, "because")
    assert "secret" not in text
    assert left_out == ("models.a.engine.upstream.api_key",)
