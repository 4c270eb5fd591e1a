"""What the repository says of itself holds: version, paths, names, and a README that fits on a page."""

import re
import tomllib
from pathlib import Path

import pytest

from experiments.cli.study import COMMANDS as STUDY_COMMANDS
from experiments.cli.trace import COMMANDS as TRACE_COMMANDS

ROOT = Path(__file__).parents[2]
WRITTEN_BY_HAND = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *(path for path in sorted((ROOT / "docs").glob("*.md")) if path.name != "paper.md"),
]


def test_the_version_is_that_of_the_changelog() -> None:
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    newest = re.search(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == stated
    assert f"\nversion: {stated}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_readme_fits_on_a_page() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_pictures_are_small() -> None:
    assert all(path.stat().st_size < 150_000 for path in (ROOT / "docs" / "images").iterdir())


@pytest.mark.parametrize("path", WRITTEN_BY_HAND, ids=lambda path: path.name)
def test_files_that_a_document_names_are_there(path: Path) -> None:
    """A path is a file, a folder, or a module without its ending."""
    rooms = "simulator|policies|traces|experiments|tests|benchmarks|examples|docs"
    for named in re.findall(rf"`((?:{rooms})/[\w./*-]+)`", path.read_text()):
        assert any(ROOT.glob(named.rstrip("/"))) or (ROOT / f"{named}.py").exists(), f"{path.name} names {named}"


def test_the_design_page_has_every_room() -> None:
    text = (ROOT / "docs" / "design.md").read_text()
    tree = text[text.index("simulator/ ") : text.index("## The law")]
    for package in ("simulator", "policies", "traces", "experiments"):
        below = re.search(rf"^{package}/ .*\n((?:  .*\n)+)", tree, re.MULTILINE)
        assert below is not None
        rooms = set(re.findall(r"^  (\w+)", below[1], re.MULTILINE))
        folders = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
        assert folders <= rooms, f"docs/design.md lacks {sorted(folders - rooms)} of {package}"


def test_every_command_below_trace_and_study_is_in_a_document() -> None:
    text = "".join(path.read_text() for path in WRITTEN_BY_HAND)
    for command in (*(f"trace {name}" for name in TRACE_COMMANDS), *(f"study {name}" for name in STUDY_COMMANDS)):
        assert f"tokenfleet {command}" in text, f"no document mentions `tokenfleet {command}`"


def test_every_document_is_on_the_site() -> None:
    listed = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    documents = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert documents | {"README.md", "CONTRIBUTING.md", "CHANGELOG.md"} == listed
