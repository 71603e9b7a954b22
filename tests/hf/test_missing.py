"""hedgerow.hf without torch or transformers."""

import subprocess
import sys

import pytest

import hedgerow as hr

PROGRAM = """
import sys
sys.modules[{blocked!r}] = None
import hedgerow as hr
try:
    import hedgerow.hf
except ImportError as error:
    print(f"{{type(error).__name__}}: {{error}}")
"""


@pytest.mark.parametrize("blocked", ["torch", "transformers"])
def test_missing_package(blocked):
    if blocked == "transformers":
        pytest.importorskip("torch")
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(blocked=blocked)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = f"MissingDependencyError: hedgerow.hf needs the package {blocked}, which is not installed."
    assert done.stdout.startswith(expected)
    assert "pip install 'hedgerow[hf]'" in done.stdout
    assert issubclass(hr.MissingDependencyError, hr.HedgerowError)


def test_an_error_in_a_module_is_not_a_missing_package():
    pytest.importorskip("transformers")
    program = PROGRAM.format(blocked="hedgerow.hf.tree")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.startswith("ModuleNotFoundError: import of hedgerow.hf.tree halted")
