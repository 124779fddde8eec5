"""The documents say what the code says: tables are current, commands, targets, files and links exist."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from filature.cli.main import app
from filature.proxy.settings import ProxySettings
from filature.worker.settings import WorkerSettings

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shell_lines(page: Path) -> Iterator[str]:
    """The command lines of a page's ``sh`` blocks, without comments."""
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            for command in re.sub(r"\s#\s.*", "", line).split("&&"):
                if command.strip():
                    yield command.strip()


def commands(first_word: str) -> list[str]:
    found = {line for page in PAGES for line in shell_lines(page) if line.startswith(first_word)}
    found |= {
        line
        for page in PAGES
        for line in re.findall(r"`([^`\n]+)`", page.read_text())
        if line.startswith(f"{first_word} ")
    }
    return sorted(found)


@pytest.mark.parametrize("page", ["settings.md", "metrics.md"])
def test_generated_tables_are_current(page: str) -> None:
    made: dict[Path, str] = generator().pages()
    assert (ROOT / "docs" / page).read_text() == made[ROOT / "docs" / page], "run `make docs`"


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    named = {shlex.split(line)[1] for line in commands("make") if len(line.split()) > 1}
    assert named
    assert named <= targets


def test_make_clean_removes_what_the_other_targets_made() -> None:
    """They make what git is told to ignore; beside it there are a person's own data and what Python keeps."""
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
    (recipe,) = re.findall(
        r"^clean:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    removed = {Path(word).name for word in recipe.replace("$(VENV)", ".venv").split()}
    assert ignored - {"data", "__pycache__", "*.egg-info"} <= removed


@pytest.mark.parametrize("line", commands("filature"))
def test_every_filature_command_that_is_named_exists_with_its_options(line: str) -> None:
    words = shlex.split(line)
    group: Any = typer.main.get_command(app)
    known, rest = group, words[1:]
    while rest and hasattr(known, "commands") and not rest[0].startswith("-"):
        known, rest = known.commands[rest[0]], rest[1:]
    options = {option for param in known.params for option in param.opts + param.secondary_opts}
    used = {word.split("=")[0] for word in rest if word.startswith("--")}
    assert used <= options | {"--help"}


def test_every_variable_that_is_named_is_a_setting() -> None:
    known = {f"FILATURE_{name.upper()}" for name in ProxySettings.model_fields}
    known |= {f"FILATURE_WORKER_{name.upper()}" for name in WorkerSettings.model_fields}
    named = {
        name for page in PAGES for name in re.findall(r"FILATURE_[A-Z_]+[A-Z]", page.read_text())
    }
    assert named <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_source_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (page.parent / target).exists(), target
    for target in re.findall(r"`(?:src/filature/|filature/)?([a-z_]+/[a-z_0-9]+\.py)`", text):
        places = (ROOT / "src" / "filature" / target, ROOT / target)
        assert any(place.exists() for place in places), target
