"""Runs a notebook from its first cell to its last, in a kernel of this interpreter: `python run_notebook.py FILE`."""

import sys
import tempfile
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient


def run(path: Path, seconds: int) -> None:
    """Raises `CellExecutionError`, whose text shows the cell and its traceback, where a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        manager = AsyncKernelManager(
            kernel_name="python3",
            # With no folder to look in, python3 is the ipykernel of this interpreter, whatever else is installed.
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
            # Sockets are files: no port to be taken by another run, and no network.
            transport="ipc",
            connection_file=f"{folder}/kernel.json",
        )
        where = {"metadata": {"path": str(path.parent)}}
        NotebookClient(notebook, km=manager, timeout=seconds, resources=where).execute(cleanup_kc=True)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            print(output.get("text") or output.get("data", {}).get("text/plain", ""))


if __name__ == "__main__":
    run(Path(sys.argv[1]), seconds=300)
