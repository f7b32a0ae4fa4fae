"""Parts found by being there."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.discovery import discover


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of three parts, and modules that are none."""
    folder = tmp_path / f"parts_of_{tmp_path.name}"
    folder.mkdir()
    for name, text in {
        "__init__": "",
        "beta": "PART = 'two'",
        "alpha": "PART = 'one'",
        "helper": "",
        "number": "PART = 7",
        "_private": "raise RuntimeError",
        "loop_inside": "raise RuntimeError",
    }.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return folder.name


def test_parts_of_the_kind_are_found_in_the_order_of_their_modules(package: str) -> None:
    assert list(discover(package, "PART", str, lambda part: part).items()) == [("one", "one"), ("two", "two")]


def test_two_of_one_name_are_an_error(package: str) -> None:
    with pytest.raises(ValueError, match="beta: there is another PART called same"):
        discover(package, "PART", str, lambda _: "same")
