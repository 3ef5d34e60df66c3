"""The notebook runs from top to bottom, and is shipped without its output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "pipelines" / "notebook.ipynb"
SETTINGS = {  # what is in the notebook, and what makes it take seconds
    "settings = {": 'settings = {"machine": {"threads": 1, "jobs": 1, "device": "cpu"},',
    '"data/models/minilm-mlm"': '"MODEL"',
    'root / "runs/notebook"': '"OUTPUT"',
    '"pool_rows": 300': '"pool_rows": 20',
    '"finetune": {"steps": 30}': '"finetune": {"steps": 2}',
    '"distill": {"steps": 60}': '"distill": {"steps": 2}',
    '"baseline": {"steps": 30}': '"baseline": {"steps": 2}',
}


@pytest.fixture
def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_is_shipped_without_output(notebook: Any) -> None:
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) > 8
    assert not any(cell.outputs or cell.execution_count for cell in cells)


@pytest.mark.allow_hosts(["127.0.0.1"])  # where the kernel listens
def test_the_notebook_runs(
    notebook: Any, tiny_mlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    run = tmp_path / "run"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for there, instead in SETTINGS.items():
        (cell,) = (cell for cell in code if there in cell.source)
        instead = instead.replace("MODEL", str(tiny_mlm)).replace("OUTPUT", str(run))
        cell.source = cell.source.replace(there, instead)
    where = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, startup_timeout=600, resources=where).execute()
    results = [
        output.data["text/plain"]
        for cell in code
        for output in cell.outputs
        if output.output_type == "execute_result"
    ]
    assert len(results) == len(code)
    assert results[1] == f"Trained(folder={run!r})"
    assert "classifier" in results[2]
    assert (run / "report" / "index.html").exists()
    assert results[4].endswith("None]")
    assert results[6] == "[None, None, None, None]"
    assert results[8].count("'confidence'") == 5
