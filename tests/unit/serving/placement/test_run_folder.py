from __future__ import annotations

import pytest

from serving.placement.run_folder import RunFolder, Started


class Thing(Started):
    def __init__(self, fault: BaseException | None = None) -> None:
        self.fault = fault
        self.told: list[str] = []

    def start(self) -> None:
        self.told.append("start")
        if self.fault is not None:
            raise self.fault

    def close(self) -> None:
        self.told.append("close")


def test_it_is_started_with_its_context_and_closed_with_it() -> None:
    with Thing() as thing:
        assert thing.told == ["start"]
    assert thing.told == ["start", "close"]


@pytest.mark.parametrize("fault", [ValueError(), KeyboardInterrupt()])
def test_a_start_that_fails_is_closed_and_fails(fault: BaseException) -> None:
    thing = Thing(fault)
    with pytest.raises(type(fault)), thing:
        pass
    assert thing.told == ["start", "close"]


def test_a_runs_folder_goes_with_all_that_is_in_it() -> None:
    folder = RunFolder()
    # Ray's sockets below it have at most 107 characters
    assert len(str(folder.path)) < 40
    (folder.path / "deep").mkdir()
    (folder.path / "deep" / "file").touch()
    folder.close()
    assert not folder.path.exists()
