"""Utilisation: model FLOPs (MFU), hardware FLOPs (HFU) and memory bandwidth (MBU), each a ratio of what was
done to what the device could do in that time.

MFU as Chowdhery et al. 2023 (PaLM, appendix B) define it: useful FLOPs over peak at the precision used. A ratio above 1
says that the FLOP model or the peak is wrong; nothing here clamps it, see :attr:`Utilisation.implausible`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metering.errors import BadInput


@dataclass(frozen=True, slots=True)
class Utilisation:
    """Ratios, 0..1 when the models are right; ``None`` where a peak is unknown."""

    mfu_ratio: float | None
    """Useful FLOPs: tokens that were kept."""
    hfu_ratio: float | None
    """Executed FLOPs: rejected speculative tokens and recomputation included."""
    mbu_ratio: float | None
    """Bytes moved over bandwidth: the one that tells in decode."""

    @property
    def implausible(self) -> tuple[str, ...]:
        """Names of ratios above 1: to be counted as diagnostics."""
        named = (("mfu", self.mfu_ratio), ("hfu", self.hfu_ratio), ("mbu", self.mbu_ratio))
        return tuple(name for name, ratio in named if ratio is not None and ratio > 1)

    @property
    def busiest(self) -> float | None:
        """The larger of MFU and MBU: the utilisation that a power model should take where no meter is."""
        known = [ratio for ratio in (self.mfu_ratio, self.mbu_ratio) if ratio is not None]
        return max(known) if known else None


def utilisation(
    seconds: float,
    *,
    useful_flops: float,
    executed_flops: float | None = None,
    bytes_moved: float | None = None,
    peak_flops: float | None = None,
    bandwidth_bytes_per_second: float | None = None,
) -> Utilisation:
    """Utilisation over ``seconds`` of all the devices that the peak and the bandwidth cover.

    >>> utilisation(2.0, useful_flops=5e12, executed_flops=6e12, peak_flops=10e12).mfu_ratio
    0.25

    Raises:
        BadInput: no time, a negative amount, a peak that is not positive, or more useful than executed FLOPs.
    """
    if not seconds > 0:
        raise BadInput(f"utilisation needs a positive time, got {seconds} s")
    executed = useful_flops if executed_flops is None else executed_flops
    if useful_flops < 0 or executed < useful_flops or (bytes_moved or 0) < 0:
        raise BadInput("FLOPs and bytes must be at least 0, and useful FLOPs at most those executed")
    return Utilisation(
        mfu_ratio=_ratio(useful_flops, peak_flops, seconds, "peak"),
        hfu_ratio=_ratio(executed, peak_flops, seconds, "peak"),
        mbu_ratio=None
        if bytes_moved is None
        else _ratio(bytes_moved, bandwidth_bytes_per_second, seconds, "bandwidth"),
    )


def _ratio(amount: float, rate: float | None, seconds: float, name: str) -> float | None:
    if rate is None:
        return None
    if not rate > 0:
        raise BadInput(f"{name} must be positive, got {rate}")
    return amount / (rate * seconds)


def roofline_seconds(
    flops: float, bytes_moved: float, *, peak_flops: float | None, bandwidth_bytes_per_second: float | None
) -> float | None:
    """Least time for the work: the longer of computing it and moving its bytes; None where neither rate is known.

    >>> roofline_seconds(1e12, 4e9, peak_flops=1e12, bandwidth_bytes_per_second=2e9)
    2.0
    """
    times = [amount / rate for amount, rate in ((flops, peak_flops), (bytes_moved, bandwidth_bytes_per_second)) if rate]
    return max(times) if times else None


@dataclass(frozen=True, slots=True)
class ModelFlopsUtilisation:
    """MFU of a run known by its token rate alone."""

    mfu_ratio: float
    mfu_without_attention_ratio: float
    flops_per_token: float


def model_flops_utilisation(
    *,
    parameters: float,
    layers: int,
    heads: int,
    head_size: int,
    sequence_tokens: int,
    tokens_per_second: float,
    chips: int,
    peak_flops: float,
    phase: Literal["training", "inference"] = "training",
) -> ModelFlopsUtilisation:
    """MFU = F x tokens/s / (chips x peak), F = 6N + 12 L H Q T in training, 2N + 4 L H Q T in inference
    (Chowdhery et al. 2023, appendix B: forward and backward are three forwards).

    >>> palm = model_flops_utilisation(parameters=540e9, layers=118, heads=48, head_size=256, sequence_tokens=2048,
    ...     tokens_per_second=238.3e3, chips=6144, peak_flops=275e12)
    >>> round(palm.mfu_ratio * 100, 1), round(palm.mfu_without_attention_ratio * 100, 1)
    (46.2, 45.7)

    Raises:
        BadInput: a figure that is not positive, named.
    """
    for name, value in (
        ("parameters", parameters),
        ("tokens per second", tokens_per_second),
        ("chips", chips),
        ("device peak", peak_flops),
        ("layers", layers),
        ("heads", heads),
        ("head size", head_size),
        ("sequence", sequence_tokens),
    ):
        if not value > 0:
            raise BadInput(f"{name} must be positive, got {value}")
    passes = 3 if phase == "training" else 1
    linear = 2.0 * passes * parameters
    attention = 4.0 * passes * layers * heads * head_size * sequence_tokens
    capacity = chips * peak_flops
    return ModelFlopsUtilisation(
        mfu_ratio=(linear + attention) * tokens_per_second / capacity,
        mfu_without_attention_ratio=linear * tokens_per_second / capacity,
        flops_per_token=linear + attention,
    )
