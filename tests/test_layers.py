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
    {"commands", "trained"},
    {"describe", "pipeline", "predicting", "run_comparison"},
    {"report", "show"},
    {"remarks"},
    {"stages"},
    {"search"},
    {"pvp", "embedding", "adapting"},
    {"tuning"},
    {"nearest_words", "prompt_start"},
    {"classifier", "demonstrations", "mlm"},
    {"contrast", "new_task", "parts", "prototypes", "training", "pretrained"},
    {"adapted", "corpus", "masking"},
    {"words"},
    {"inference", "labelled", "optimisation", "run", "soft_prompt", "whole_tables"},
    {"encoding", "schedule", "sources"},
    {
        "batches",
        "encoded",
        "calibration",
        "combining",
        "hub_datasets",
        "in_memory",
        "metrics",
        "reasons",
        "soft_tokens",
        "task_files",
        "units",
        "writers",
    },
    {"compute", "fanout", "formats", "keys", "models", "patterns", "records"},
    {"drafts", "duplicates", "settings", "stage_totals", "tables", "texts", "truncation"},
    {"config", "label_names", "progress"},
    {"setting_types"},
    {"columns", "errors", "estimate", "files", "methods", "pace", "seeds"},
]
FLOOR = {name: n for n, names in enumerate(FLOORS) for name in names}
BOOKKEEPING = {"run", "units", "keys", "fanout", "reasons", "schedule", "estimate", "stage_totals"}
LEARNING = {
    "search",
    "adapting",
    "corpus",
    "masking",
    "words",
    "pvp",
    "classifier",
    "contrast",
    "embedding",
    "demonstrations",
    "training",
    "mlm",
    "pretrained",
    "inference",
    "encoding",
    "encoded",
    "nearest_words",
    "parts",
    "prompt_start",
    "prototypes",
    "soft_prompt",
    "soft_tokens",
    "tuning",
}
WITH_TORCH = LEARNING | {"describe", "predicting"}
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
        assert not BOOKKEEPING & set(imports(file))
    if me in BOOKKEEPING:
        assert not LEARNING & set(imports(file))


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_modules_say_what_they_are_for_and_stay_small(file: Path) -> None:
    text = file.read_text("utf-8")
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 400


HEAVY = {"torch", "transformers", "safetensors"}


def loaded_at_once(tree: ast.AST) -> Iterator[str]:
    """Packages that importing a module imports: not those of functions and of type checks."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        elif not isinstance(node, ast.FunctionDef | ast.Lambda):
            yield from loaded_at_once(node)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_heavy_imports_stay_in_the_learning_column(file: Path) -> None:
    heavy = HEAVY & set(loaded_at_once(ast.parse(file.read_text("utf-8"))))
    assert not heavy or name_of(file) in LEARNING


def test_there_are_modules() -> None:
    assert len(FILES) > 60


def test_modules_without_a_tensor_need_no_torch() -> None:
    assert "torch" not in loaded_after("pet_pipeline.encoding")
    assert "torch" in loaded_after("pet_pipeline.inference")


def loaded_after(module: str) -> set[str]:
    """The modules that are loaded when one was imported."""
    done = run("-c", f"import sys, {module}; print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


OWNED = {"machine", "device", "batch_tokens", "threads"}  # by Compute; nothing else is handed them


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_where_and_how_fast_is_handed_on_as_one_value(file: Path) -> None:
    if name_of(file) in {"compute", "commands"}:  # a person's options
        return
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            assert not OWNED & {argument.arg for argument in arguments}, node.name
            assert (
                len(arguments) - (arguments[:1] != [] and arguments[0].arg in ("self", "cls")) <= 8
            )


def test_public_names() -> None:
    assert pet_pipeline.__all__ == sorted(pet_pipeline.__all__)
    for name in pet_pipeline.__all__:
        assert getattr(pet_pipeline, name).__name__ == name
    assert dir(pet_pipeline) == pet_pipeline.__all__  # and no modules, which are loaded by now
    with pytest.raises(AttributeError, match="no attribute 'train_everything'"):
        _ = pet_pipeline.train_everything


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], capture_output=True, text=True)


def test_plans_and_help_need_no_torch() -> None:
    light = sorted(
        ".".join(("pet_pipeline", *file.relative_to(PACKAGE).with_suffix("").parts))
        for file in FILES
        if name_of(file) not in {*WITH_TORCH, "__init__"}
    )
    assert {"pet_pipeline.cli", "pet_pipeline.run", "pet_pipeline.stages.finetune"} <= set(light)
    program = (
        "import importlib, sys, pet_pipeline\n"
        f"for name in {light}: importlib.import_module(name.removesuffix('.__init__'))\n"
        "for name in pet_pipeline.__all__: name == 'Classifier' or getattr(pet_pipeline, name)\n"
        "names = [m for m in ('torch', 'transformers') if m in sys.modules]\n"
        "sys.exit(', '.join(names) or 0)"
    )
    done = run("-c", program)
    assert done.returncode == 0, done.stderr


def test_the_help_needs_no_torch() -> None:
    done = run("-X", "importtime", "-m", "pet_pipeline.cli", "--help")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 0
    assert "pet_pipeline.config" in imported
    assert not imported & {"torch", "transformers", "matplotlib", "datasets"}
