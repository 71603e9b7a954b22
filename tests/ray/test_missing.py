"""hedgerow.ray without Ray, or without what Ray Serve needs."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
sys.modules[{blocked!r}] = None
try:
    import hedgerow.ray
    hedgerow.ray.application(None, None)
except ImportError as error:
    print(f"{{type(error).__name__}}: {{error}}")
"""


@pytest.mark.parametrize(("blocked", "what"), [("ray", "hedgerow.ray"), ("fastapi", "hedgerow.ray.application")])
def test_missing_package(blocked, what):
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(blocked=blocked)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        f"MissingDependencyError: {what} needs the package {blocked}, which is not installed."
    )
    assert "pip install 'hedgerow[ray]'" in done.stdout
