from __future__ import annotations

import pytest

from tests.system_packages import PROGRAMS, packages, program


def test_every_program_comes_from_a_listed_package() -> None:
    assert set(PROGRAMS.values()) == set(packages())


def test_a_missing_program_skips_the_test_and_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium-driver"):
        program("chromedriver")


def test_a_program_that_is_there_is_found(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    fake = tmp_path / "promtool"
    fake.write_text("#!/bin/sh\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program("promtool") == str(fake)
