"""What the modules of the service may import, so that searching needs no web server and routes need no framework."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hedgerow

SERVE = Path(hedgerow.__file__).parent / "serve"
WEB = ("fastapi", "uvicorn", "starlette")
# Modules that search and switch versions.
SEARCHING = ("asking", "batcher", "engine", "follow", "rules", "settings", "snapshot")
# Modules that answer requests.
ANSWERING = ("documents", "gate", "http", "kserve", "log", "openai", "openapi", "web")


def imported_by(module):
    """The names of packages and modules that a file imports, also inside functions and `if TYPE_CHECKING`."""
    tree = ast.parse((SERVE / f"{module}.py").read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "the imports of this repository are absolute"
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("module", SEARCHING)
def test_modules_that_search_import_no_web_server(module):
    """Neither they nor the modules of the service that they import."""
    found, waiting = set(), [module]
    while waiting:
        names = imported_by(waiting.pop())
        found |= {name.partition(".")[0] for name in names}
        modules = {name.removeprefix("hedgerow.serve.").partition(".")[0] for name in names if ".serve." in name}
        waiting += [name for name in modules - found if (SERVE / f"{name}.py").exists()]
        found |= modules
    assert not found & {*WEB, "pydantic", "orjson"}


@pytest.mark.parametrize("module", ANSWERING)
def test_modules_that_answer_import_no_framework(module):
    packages = {name.partition(".")[0] for name in imported_by(module)}
    assert not packages & {"torch", "transformers", "jax"}


def test_nothing_else_of_hedgerow_imports_the_service():
    """Only its command, hedgerow.ray, which runs it on Ray Serve, and hedgerow.vllm, which has its documents."""
    package = SERVE.parent
    allowed = {SERVE, package / "ray", package / "vllm"}
    commands = {package / "cli" / "serve.py", package / "cli" / "service_options.py"}
    for path in sorted(package.rglob("*.py")):
        if allowed & set(path.parents) or path in commands:
            continue
        assert "hedgerow.serve" not in path.read_text(encoding="utf-8").replace("hedgerow serve", ""), path


def run(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(
    "HEDGEROW_TEST_SERVE" not in os.environ, reason="make test-serve runs this test: it imports PyTorch in a process"
)
def test_the_engine_runs_without_a_web_server():
    for package in ("torch", "transformers", "prometheus_client"):
        pytest.importorskip(package)
    program = (
        "import sys, hedgerow.serve.engine, hedgerow.serve.batcher, hedgerow.serve.follow\n"
        f"print(sorted({{*{WEB!r}}} & set(sys.modules)))"
    )
    assert run(program) == "[]\n"


def test_the_command_line_imports_the_service_only_to_serve():
    program = "import sys, hedgerow.cli.main\nprint(sorted(name for name in sys.modules if 'hedgerow.serve' in name))"
    assert run(program) == "[]\n"
