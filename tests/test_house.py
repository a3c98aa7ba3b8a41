"""The map in the page on the architecture is that of the folders."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import house
import pytest
import structure

pytestmark = [pytest.mark.docs, pytest.mark.once]


@pytest.mark.parametrize("page", house.PAGES, ids=lambda page: page.name)
def test_the_map_is_that_of_the_folders(page: Path) -> None:
    assert page.read_text(encoding="utf-8") == house.written(page), "python tests/house.py"


def test_every_folder_of_the_package_is_a_room() -> None:
    assert sorted(house.ROOMS) == house.rooms()


def test_a_newcomer_sees_few_modules_beside_the_rooms() -> None:
    assert len(list(house.PACKAGE.glob("*.py"))) <= 16


@pytest.mark.parametrize("room", house.ROOMS)
def test_a_room_says_what_it_is_for_what_comes_in_and_what_goes_out(room: str) -> None:
    text = (house.PACKAGE / room / "__init__.py").read_text(encoding="utf-8")
    assert "In come" in text and ("ut go" in text or "returns" in text)


@pytest.mark.parametrize("path", sorted(house.PACKAGE.rglob("*.py")), ids=lambda p: p.name)
def test_a_module_says_in_one_line_what_it_is(path: Path) -> None:
    assert 10 < len(house.first_line(path)) <= 100


def test_the_map_goes_from_the_machine_up() -> None:
    layers = [name.split(".")[0] for name in structure.LAYERS]
    places = [layers.index(room) for room in house.ROOMS]
    assert places == sorted(places)


def test_the_readme_names_the_folders_of_the_repository() -> None:
    text = (house.ROOT / "README.md").read_text(encoding="utf-8")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=house.ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a clone")
    folders = {line.split("/")[0] for line in listed.stdout.splitlines() if "/" in line}
    for folder in folders - {name for name in folders if name.startswith(".")}:
        assert f"`{folder}/`" in text, folder


def test_every_file_that_the_page_on_the_architecture_names_is_there() -> None:
    text = (house.ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:\w+/)+\w+\.(?:py|c|inc))`", text)
    assert len(named) > 15
    for name in named:
        places = (house.ROOT / name, house.PACKAGE / name)
        assert any(place.is_file() for place in places), name
