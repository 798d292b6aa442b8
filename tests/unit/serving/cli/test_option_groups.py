from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from serving.cli.option_groups import spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Trip:
    nights: Annotated[int, typer.Option(min=1, help="How long.")]
    by: Annotated[str, typer.Option(help="What carries you.")] = "train"


_WEEKEND = Trip(nights=2)
_WEEK = Trip(nights=7, by="boat")


def app() -> typer.Typer:
    made = typer.Typer()

    @made.command()
    @spread
    def weekend(to: str, trip: Trip = _WEEKEND, alone: Annotated[bool, typer.Option("--alone")] = False) -> None:
        print(to, trip, alone)

    @made.command()
    @spread
    def week(trip: Trip = _WEEK) -> None:
        """A long one."""
        print(trip)

    return made


def said(*arguments: str) -> str:
    result = CliRunner().invoke(app(), arguments)
    assert result.exit_code == 0, result.output
    return result.output.strip()


def test_each_command_has_its_own_defaults_for_the_same_options() -> None:
    assert said("weekend", "Oslo") == f"Oslo {_WEEKEND} False"
    assert said("week") == str(_WEEK)


def test_what_is_given_comes_back_in_the_group() -> None:
    assert said("weekend", "--by", "bus", "Oslo", "--alone") == f"Oslo {Trip(nights=2, by='bus')} True"


def test_help_and_bounds_are_those_of_the_fields() -> None:
    shown = said("week", "--help")
    assert "What carries you." in shown
    assert "A long one." in shown
    assert CliRunner().invoke(app(), ["week", "--nights", "0"]).exit_code == 2
