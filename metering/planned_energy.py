"""Energy of planned inference by a named estimator: the device's watts, over a time that the roofline gives."""

from __future__ import annotations

from metering.errors import BadInput
from metering.estimators import EstimatorName
from metering.hardware.device import Device
from metering.power.model import nameplate_joules


def planned_joules(
    estimator: EstimatorName,
    device: Device,
    count: int,
    seconds: float,
    *,
    utilised: float,
    mfu_ratio: float | None,
    average_watts: float | None = None,
) -> tuple[float | None, str | None, str]:
    """Joules of all the devices before PUE, the name of what made them, and a note on what it took for what.

    On the roofline one of compute and bandwidth is fully used, so the idle-aware model gives the maximal watts and
    needs no idle figure; below it, an unknown idle figure leaves an upper bound, under a name of its own.

    Args:
        utilised: share of the roofline that is reached, max(MFU, MBU).
        average_watts: average system power of one device, for ``llmcarbon``.

    Raises:
        BadInput: average watts given to an estimator that has no use for them, or that are negative.
    """
    if average_watts is not None and estimator != "llmcarbon":
        raise BadInput(f"the estimator {estimator} takes the device's maximal watts, not average ones")
    if average_watts is not None:
        if not 0 <= average_watts < float("inf"):
            raise BadInput(f"average watts must be at least 0 and finite, got {average_watts}")
        return average_watts * count * seconds, estimator, ""
    if device.max_watts is None:
        return None, None, f"The power of {device.name} is unknown: no energy; give its maximal watts."
    full = device.max_watts.value
    if estimator == "llmcarbon":
        note = f"The maximal {full:g} W of {device.name} stand for the average system power that llmcarbon takes."
        return full * count * seconds, estimator, note
    if estimator == "nameplate":
        if mfu_ratio is None:
            return None, None, "nameplate needs the MFU, which is unknown: no energy."
        return nameplate_joules(full, mfu_ratio, seconds, count), estimator, ""
    if device.idle_watts is not None:
        idle = device.idle_watts.value
        return (idle + (full - idle) * utilised) * count * seconds, estimator, ""
    if utilised < 1:
        note = f"The idle power of {device.name} is unknown: maximal watts throughout, an upper bound."
        return full * count * seconds, "maximal_watts", note
    return full * count * seconds, estimator, ""
