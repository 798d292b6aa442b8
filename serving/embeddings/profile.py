"""The embedding model on the one core that it computes on, as the meter needs to know it."""

from __future__ import annotations

import contextlib
from typing import Any

from metering.architecture import architecture_from_config
from metering.encoder_profile import EncoderProfile
from metering.errors import BadInput
from metering.hardware.detect import detect_cpu
from serving.placement.calibration import with_calibration

ENCODER_DTYPE = "float32"
ENCODER_WEIGHT_BYTES = 4.0


def encoder_profile(name: str, config: dict[str, Any] | None) -> EncoderProfile:
    """``config``: the model's, as Hugging Face keeps it; whatever is unknown stays None."""
    architecture = None
    if config is not None:
        with contextlib.suppress(BadInput):
            architecture = architecture_from_config(config)
    # the calibration of one core, where this machine has one
    device = with_calibration(detect_cpu(threads=1), (0,)).device
    peak, bandwidth = device.peak_for(ENCODER_DTYPE), device.bandwidth_bytes_per_second
    return EncoderProfile(
        name=name,
        architecture=architecture,
        weight_bytes_each=ENCODER_WEIGHT_BYTES,
        peak_flops=peak.value if peak else None,
        bandwidth_bytes_per_second=bandwidth.value if bandwidth else None,
    )
