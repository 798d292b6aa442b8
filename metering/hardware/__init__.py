"""Devices: the catalogue of published figures, and what this machine has."""

from metering.hardware.catalogue import catalogue, cpu_models, find_device, memory_watts_per_gb
from metering.hardware.detect import detect, detect_cpu
from metering.hardware.device import DetectedHardware, Device, Figure

__all__ = [
    "DetectedHardware",
    "Device",
    "Figure",
    "catalogue",
    "cpu_models",
    "detect",
    "detect_cpu",
    "find_device",
    "memory_watts_per_gb",
]
