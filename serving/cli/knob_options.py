"""Options of ``tune`` that say which knobs are turned, and how far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from serving.config import GatewayConfig
    from serving.tuning.setting import Setting, Space

_UNKNOWN_TO_THE_SIMULATOR = ("--try-chunked-prefill", "--dtype", "--variant")
_RESTARTING = ("--max-batched-tokens", "--try-prefix-caching", *_UNKNOWN_TO_THE_SIMULATOR, "--replicas")
_OF_VLLM = ("--max-batched-tokens", "--try-prefix-caching", *_UNKNOWN_TO_THE_SIMULATOR)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnobOptions:
    """To be ``spread`` into the command's signature."""

    caps: Annotated[str, typer.Option(help="Live caps to search, as 1-64.")] = "1-64"
    max_batched_tokens: Annotated[
        list[int] | None, typer.Option(help="Also try this many tokens in a step (restarts); may be repeated.")
    ] = None
    try_prefix_caching: Annotated[
        bool, typer.Option("--try-prefix-caching", help="Also try with and without prefix caching (restarts).")
    ] = False
    try_chunked_prefill: Annotated[
        bool, typer.Option("--try-chunked-prefill", help="Also try with and without chunked prefill (restarts).")
    ] = False
    dtype: Annotated[list[str] | None, typer.Option(help="Also try this precision (restarts); may be repeated.")] = None
    replicas: Annotated[
        list[int] | None, typer.Option(help="Also try so many replicas (restarts); may be repeated.")
    ] = None

    variant: Annotated[
        list[str] | None,
        typer.Option(help="Also try this variant of the model, as a quantised one (restarts; id or folder; repeat)."),
    ] = None

    def refuse_idle(self, config: GatewayConfig, simulate: str | None) -> None:
        """A knob that changes nothing would be tried for nothing, and recommended by chance.

        Raises:
            BadInput: one was asked for, or the configuration has several models.
        """
        from metering.errors import BadInput

        if config.models:
            raise BadInput(
                f"tune turns one model, and this configuration has several ({', '.join(config.models)}): give tune a "
                "configuration with one of them as `engine`, and carry its `admission` and `engine` over"
            )
        said = self._said()
        without_effect = _OF_VLLM if simulate is None else _UNKNOWN_TO_THE_SIMULATOR
        idle = ", ".join(name for name in without_effect if said[name])
        if idle and simulate is not None:
            raise BadInput(f"an engine model does not know {idle}: leave it away, or tune without --simulate")
        if idle and config.engine.kind != "vllm":
            raise BadInput(
                f"{idle} turns vLLM's own options, and the engine is {config.engine.kind}: "
                "leave it away, or tune with --engine vllm"
            )

    def refuse_restarting(self) -> None:
        """Of a gateway that is running only the cap is turned. Raises ``BadInput``."""
        from metering.errors import BadInput

        said = self._said()
        asked = ", ".join(name for name in _RESTARTING if said[name])
        if asked:
            raise BadInput(
                f"{asked} restarts the engine, and the gateway at --url is only moved in its cap: leave it away, or "
                "let tune start a gateway of its own (without --url)"
            )

    def _said(self) -> dict[str, object]:
        return {
            "--max-batched-tokens": self.max_batched_tokens,
            "--try-prefix-caching": self.try_prefix_caching,
            "--try-chunked-prefill": self.try_chunked_prefill,
            "--dtype": self.dtype,
            "--replicas": self.replicas,
            "--variant": self.variant,
        }

    def space(self, current: Setting) -> Space:
        """The present value of each knob, and what is to be tried beside it.

        Raises:
            BadInput: caps that are no range.
        """
        from metering.errors import BadInput
        from serving.tuning.setting import Space

        low, dash, high = self.caps.partition("-")
        if not dash or not low.strip().isdecimal() or not high.strip().isdecimal():
            raise BadInput(f"--caps {self.caps!r} is not a range: write 1-64")
        chunked = (current.chunked_prefill, True, False) if self.try_chunked_prefill else (current.chunked_prefill,)
        return Space(
            int(low),
            int(high),
            tuple(dict.fromkeys((current.max_batched_tokens, *(self.max_batched_tokens or ())))),
            (True, False) if self.try_prefix_caching else (current.prefix_caching,),
            tuple(dict.fromkeys(chunked)),
            tuple(dict.fromkeys((current.dtype, *(self.dtype or ())))),
            tuple(dict.fromkeys((current.replicas, *(self.replicas or ())))),
            tuple(dict.fromkeys((current.model, *(self.variant or ())))),
        )
