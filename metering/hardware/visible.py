"""Which of a machine's GPUs a process may work on: what ``CUDA_VISIBLE_DEVICES`` leaves of them, in CUDA's order."""

from __future__ import annotations

from collections.abc import Sequence

from metering.hardware.nvml import NvmlDevice

VARIABLE = "CUDA_VISIBLE_DEVICES"


def visible_devices(setting: str | None, gpus: Sequence[NvmlDevice]) -> tuple[str, ...]:
    """UUIDs of the GPUs, or of the one MIG slice, that CUDA shows a process.

    As NVIDIA's CUDA programming guide (environment variables) and MIG user guide (device enumeration) have it: an
    entry is a number, a UUID or its beginning, the first that names nothing ends the list, and with a MIG slice CUDA
    shows that slice alone. Numbers are taken in NVML's order, which is CUDA's among equal GPUs and with
    ``CUDA_DEVICE_ORDER=PCI_BUS_ID``.

    Args:
        setting: of ``CUDA_VISIBLE_DEVICES``; None: not set, all are shown.

    >>> visible_devices("1", [NvmlDevice(0, "L4", "GPU-a"), NvmlDevice(1, "L4", "GPU-b")])
    ('GPU-b',)
    """
    slices = [uuid for gpu in gpus for uuid in gpu.slices]
    entries = [str(gpu.index) for gpu in gpus] if setting is None else [entry.strip() for entry in setting.split(",")]
    shown: list[str] = []
    for entry in entries:
        found = _named(entry, gpus, slices)
        if found is None and setting is None:
            continue
        if found is None:
            break
        if found not in shown:
            shown.append(found)
    return next(((uuid,) for uuid in shown if uuid in slices), tuple(shown))


def _named(entry: str, gpus: Sequence[NvmlDevice], slices: Sequence[str]) -> str | None:
    if entry.isdigit():
        chosen = [gpu for gpu in gpus if gpu.index == int(entry)]
    elif entry.startswith("GPU-"):
        chosen = [gpu for gpu in gpus if gpu.uuid.startswith(entry)]
    else:
        found = [uuid for uuid in slices if entry and uuid.startswith(entry)]
        return found[0] if len(found) == 1 else None
    if len(chosen) != 1:
        return None
    (gpu,) = chosen
    if not gpu.is_mig:
        return gpu.uuid
    return gpu.slices[0] if gpu.slices else None
