"""The user's configuration as tune's own gateway has it: what works is theirs, what records or meters people is not."""

from __future__ import annotations

from serving.config import AccessSettings, GatewayConfig
from serving.control_settings import CapControlSettings


def own_gateway(config: GatewayConfig) -> GatewayConfig:
    """On a free port of this machine, for the gateway that is in use may be up; with nothing that moves the cap but
    tune; and drawn requests go into no log, history, account, batch or cache of the user's: what has no place here
    ends with the run. Without keys and their limits, which are of tenants.
    """
    cache = {"redis": "embedded", "shadow_share": 0.0, "shadow_labels": None}
    logs = {"request_log": None, "log_prompts": "off", "workload_log": None, "otlp_endpoint": None}
    history = config.metering.history.model_copy(update={"enabled": False})
    return config.model_copy(
        update={
            "server": config.server.model_copy(update={"host": "127.0.0.1", "port": 0, "metrics_port": None}),
            "access": AccessSettings(),
            "control": CapControlSettings(),
            "limits": config.limits.model_copy(update={"folder": None, "redis": None}),
            "batches": config.batches.model_copy(update={"folder": None}),
            "cache": config.cache.model_copy(update=cache),
            "telemetry": config.telemetry.model_copy(update=logs),
            "metering": config.metering.model_copy(update={"history": history}),
        }
    )
