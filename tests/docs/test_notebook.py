"""The notebook of the documentation runs from its first cell to its last."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "docs/notebook.ipynb"


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_is_stored_without_outputs(notebook):
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


@pytest.mark.slow
def test_the_notebook_runs(notebook, tmp_path, monkeypatch):
    monkeypatch.setenv("NOTEBOOK_TRAIN", "200")
    monkeypatch.setenv("NOTEBOOK_STEPS", "100")
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.get("text", "") for output in outputs)
    assert "graph    WER" in printed
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert {"image/png", "text/html"} <= kinds  # the curves, and the transcript with shaded words
    assert (tmp_path / "digits_report.html").stat().st_size > 10_000
