"""The architecture: imports go down, the two columns stay apart, heavy imports stay below."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pet_pipeline

PACKAGE = Path(pet_pipeline.__file__).parent
FLOORS = [  # top to bottom; names on one floor do not import each other
    {"cli"},
    {"report", "show"},
    {"stages"},
    {"pvp", "classifier"},
    {"training", "inference", "pooling"},
    {"mlm"},
    {"pretrained"},
    {"encoding", "batches"},
    {"run"},
    {"metrics"},
    {"patterns", "data", "models", "progress"},
    {"config"},
    {"errors", "seeds"},
]
FLOOR = {name: n for n, names in enumerate(FLOORS) for name in names}
LEARNING = {
    "pvp",
    "classifier",
    "training",
    "inference",
    "pooling",
    "mlm",
    "pretrained",
    "encoding",
}
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pet_pipeline"):
            parts = (node.module or "").split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("pet_pipeline.")]
            yield from (name.split(".")[1] for name in names)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_go_down(file: Path) -> None:
    me = name_of(file)
    if me == "__init__":
        return
    up = [name for name in imports(file) if name != me and FLOOR[name] <= FLOOR[me]]
    assert not up, f"{me} is on floor {FLOOR[me]} and imports {up}"
    if me in LEARNING:
        assert "run" not in imports(file)
    if me == "run":
        assert not LEARNING & set(imports(file))


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_modules_say_what_they_are_for_and_stay_small(file: Path) -> None:
    text = file.read_text("utf-8")
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 400


def test_there_are_modules() -> None:
    assert len(FILES) > 25


def test_public_names() -> None:
    assert pet_pipeline.__all__ == sorted(pet_pipeline.__all__)
    for name in pet_pipeline.__all__:
        assert getattr(pet_pipeline, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'train_everything'"):
        _ = pet_pipeline.train_everything


def test_plans_and_help_need_no_torch() -> None:
    program = (
        "import sys, pet_pipeline.cli, pet_pipeline.show, pet_pipeline.report\n"
        "from pet_pipeline import *\n"
        "names = [m for m in ('torch', 'transformers', 'matplotlib') if m in sys.modules]\n"
        "sys.exit(', '.join(names) or 0)"
    ).replace(
        "from pet_pipeline import *", "from pet_pipeline import annotate, evaluate, grow, prepare"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
