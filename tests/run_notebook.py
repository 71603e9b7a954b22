"""Run a notebook from the first to the last cell, in a kernel of this interpreter: `python run_notebook.py FILE`."""

import sys
import tempfile
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient


def run(path: Path, seconds: int) -> None:
    """Run a notebook and print its outputs.

    Args:
        path: the notebook.
        seconds: the time limit of each cell.

    Raises:
        CellExecutionError: a cell failed. The message contains the cell and the traceback.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        manager = AsyncKernelManager(
            kernel_name="python3",
            # Without folders of kernels, python3 is the ipykernel of this interpreter.
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
            # With sockets as files, the kernel needs no port and no network.
            transport="ipc",
            connection_file=f"{folder}/kernel.json",
        )
        resources = {"metadata": {"path": str(path.parent)}}
        NotebookClient(notebook, km=manager, timeout=seconds, resources=resources).execute(cleanup_kc=True)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            print(output.get("text") or output.get("data", {}).get("text/plain", ""))


if __name__ == "__main__":
    run(Path(sys.argv[1]), seconds=300)
