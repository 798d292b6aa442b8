"""Ray and Ray Serve on this machine: their environment, their ports, their start."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import secrets
import signal
import socket
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal

from serving.placement.gpus import gpus_here
from serving.placement.node_meters import stop_node_meters
from serving.placement.proxy_launcher import find_haproxy, refusal_options, write_launcher

Affinity = Literal["none", "conversation"]

HAPROXY_RETRY_ON = "conn-failure empty-response 503"
"""A killed replica closes connections without an answer, and one whose engine has died says 503: such a request, if
it fits the proxy's buffer, is sent once more, to a sibling where there is one."""
HAPROXY_RETRIES = 1
HAPROXY_OPTIONS = ("no option splice-request", "option http-buffer-request")
"""Ray's template has no place for further options, but takes the value of retry-on as it is, so they follow it on
lines of their own. While a request is spliced, HAProxy (2.8) does not see its client go: a unary call whose body came
in a segment of its own ran to its end. And only a request that HAProxy has whole can be sent again: without waiting
for the body it has not, where a client sends head and body apart, as httpx and with it the OpenAI SDK do.
"""
HAPROXY_BUFFER_BYTES = 128 * 1024
"""What of a request is kept to be sent again, and looked at for its conversation: some 30,000 tokens of text, where
HAProxy's own 16 KiB are 4,000. At most two such buffers for each connection at work."""
_LOG_TARGET = "127.0.0.1:514"
"""Ray's own default: nobody listens there."""
_LOST_NODE = (
    *("option srvtcpka", "srvtcpka-idle 5s", "srvtcpka-intvl 1s", "srvtcpka-cnt 5"),
    "default-server tcp-ut 10s",
)
"""A machine that goes without a word closes nothing: the kernel asks (idle connections) or gives up on what was not
acknowledged (the others), within 10 s, and a request without an answer goes to a sibling."""
_CLUSTER_RETRIES = 3
"""Of a request without an answer, where a whole node may go: the first may still find the dead node's address, and the
proxy takes that for dead after three refusals."""
_BALANCE_FACTOR = 150
"""Per cent of the replicas' mean load that a conversation's replica may have; above it the next one takes the request
(consistent hashing with bounded loads: Mirrokni, Thorup, Zadimoghaddam 2016; HAProxy advises 125 to 200)."""
OBJECT_STORE_BYTES = 80 * 1024 * 1024
"""Tokens do not pass through Ray's object store; its smallest useful size will do."""
_REPLICA_PORTS = 1000
_LASTING_PORTS = range(12000, 20000)
HAPROXY_PROGRAM = "RAY_SERVE_HAPROXY_BINARY_PATH"


def free_port(host: str = "127.0.0.1", wanted: int = 0) -> int:
    """``wanted``, or any free port for 0. Raises ``OSError`` where it cannot be had."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, wanted))
        return int(sock.getsockname()[1])


def lasting_port(host: str = "0.0.0.0") -> int:
    """A free port that nobody is given by chance before it is used: below those that Linux hands out (from 32768)."""
    for port in random.sample(_LASTING_PORTS, 50):
        with contextlib.suppress(OSError):
            return free_port(host, port)
    raise OSError(f"no free port between {_LASTING_PORTS[0]} and {_LASTING_PORTS[-1]}")


def free_port_range(length: int) -> int:
    """First port of a range whose beginning is free; ranges of other runs are stepped over."""
    for start in range(20000, 32000 - length, length):
        try:
            with socket.socket() as sock:
                sock.bind(("127.0.0.1", start))
                return start
        except OSError:
            continue
    return 20000


def balance(affinity: Affinity) -> dict[str, str]:
    """How HAProxy chooses a request's replica. Ray's template takes both values as they are: what has no field of its
    own there follows on further lines."""
    if affinity == "none":
        return {}
    script = Path(__file__).with_name("conversation.lua")
    lines = (
        "hash lua.conversation",
        "hash-type consistent",
        f"hash-balance-factor {_BALANCE_FACTOR}",
    )
    return {
        "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM": "\n    ".join(lines),
        "RAY_SERVE_HAPROXY_LOG_TARGET": f"{_LOG_TARGET} local0 notice\n    lua-load-per-thread {script}\n"
        f"    log {_LOG_TARGET}",
    }


def proxy_environment(
    folder: Path,
    *,
    longest_request_seconds: float,
    affinity: Affinity = "none",
    cluster: bool = False,
    pages: Path | None = None,
) -> dict[str, str]:
    """Variables of Ray Serve with HAProxy on one node; ``folder`` is its own. ``cluster``: other nodes may be lost.
    ``pages``: where our launcher has its own, if not in that folder.
    """
    proxy = folder / "haproxy"
    options: tuple[str, ...] = (HAPROXY_RETRY_ON, *HAPROXY_OPTIONS)
    options += refusal_options(pages or proxy, longest_request_seconds)
    if cluster:
        options += _LOST_NODE
    return balance(affinity) | {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(proxy / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(proxy / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(proxy / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(proxy),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(proxy / "server-state"),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(lasting_port()),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(lasting_port()),
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(lasting_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(lasting_port()),
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(HAPROXY_BUFFER_BYTES),
        "RAY_SERVE_HAPROXY_RETRY_ON": "\n    ".join(options),
        "RAY_SERVE_HAPROXY_RETRIES": str(_CLUSTER_RETRIES if cluster else HAPROXY_RETRIES),
        # a client that reads nothing keeps its connection no longer
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(int(longest_request_seconds) + 60),
        # a reload cuts streams older than this
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(int(longest_request_seconds) + 60),
        # a proxy that was killed is missed after three of these
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        # Ray's 15 would put the engine behind Ray's own housekeeping, which is at 0
        "RAY_worker_niceness": "0",
        "RAY_enable_metrics_collection": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DISABLE_IMPORT_WARNING": "1",
        "RAY_DEDUP_LOGS": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
    }


def environment(run_folder: Path, *, longest_request_seconds: float, affinity: Affinity = "none") -> dict[str, str]:
    """Variables that Ray reads when it is imported; each run has its own, so that two on one machine do not meet."""
    first = free_port_range(_REPLICA_PORTS)
    shared = proxy_environment(run_folder, longest_request_seconds=longest_request_seconds, affinity=affinity)
    return shared | {
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + _REPLICA_PORTS // 2 - 1),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(first + _REPLICA_PORTS // 2),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(first + _REPLICA_PORTS - 1),
        # Ray's own ports take commands: only who holds this run's token may use them
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": _token(),
    }


@cache
def _token() -> str:
    """One for all runs of a process, as tuning has them: Ray keeps the first that it has read."""
    return secrets.token_hex(32)


def start_ray(run_folder: Path, run_environment: dict[str, str]) -> None:
    """Start Ray in this process's care. The environment must be set before Ray is imported anywhere."""
    (run_folder / "haproxy").mkdir(exist_ok=True)
    (run_folder / "metrics").mkdir(exist_ok=True)
    os.environ.update(run_environment)
    os.environ.pop(HAPROXY_PROGRAM, None)
    launcher = write_launcher(run_folder / "haproxy", find_haproxy())
    if launcher is not None:
        os.environ[HAPROXY_PROGRAM] = str(launcher)
    gpus = gpus_here()
    enter_ray(
        num_cpus=max(1, os.cpu_count() or 1),
        # left to Ray where there are none to count
        **({"num_gpus": gpus} if gpus else {}),
        include_dashboard=False,
        configure_logging=True,
        logging_level=logging.ERROR,
        object_store_memory=OBJECT_STORE_BYTES,
        # another loopback address: Ray replaces 127.0.0.1 itself by one that other machines can reach
        _node_ip_address="127.0.0.2",
        _temp_dir=str(run_folder / "ray"),
    )


def enter_ray(**how: Any) -> None:
    """``ray.init`` that leaves SIGTERM to whom it belonged. Ray takes it over twice: in Python by an exit with status
    15, and in native code by a handler of faults that aborts the process.

    Raises:
        KeyboardInterrupt: SIGTERM came meanwhile.
    """
    # read when Ray is imported; the replicas keep theirs
    os.environ["RAY_DISABLE_FAILURE_SIGNAL_HANDLER"] = "1"
    import ray

    del os.environ["RAY_DISABLE_FAILURE_SIGNAL_HANDLER"]
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(namespace="wattgate", log_to_driver=False, **how)
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGTERM, before)


def reason(error: Exception) -> str:
    """What went wrong, on one line: the error in Ray's process, where it was one of those that failed; its own text
    begins with the process and ends with the cause."""
    lines = str(getattr(error, "cause", None) or error).splitlines()
    return " ".join(line.strip() for line in lines if line.strip()) or type(error).__name__


def start_serve(host: str, port: int, proxy_location: str = "HeadOnly") -> None:
    from ray import serve

    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(
        proxy_location=proxy_location,
        http_options={"host": host, "port": port, "keep_alive_timeout_s": 75},
        logging_config={"log_level": "WARNING", "enable_access_log": False},
    )


def stop_all(names: Iterable[str]) -> None:
    """Let the replicas finish what they accepted, one application after the other, have their last reports booked
    and kept, then end Ray.
    """
    import ray
    from ray import serve

    if ray.is_initialized():
        try:
            for name in names:
                serve.delete(name)
            stop_node_meters()
        finally:
            ray.shutdown()
