"""Runs a fuzz target for some time: ``python tests/fuzz/run_fuzz.py index|live|quantizer SECONDS``.

Atheris guides the mutations by the coverage of hedgerow's code; without it, they are random. The run ends with
the first failure, and prints the choices that led to it.
"""

from __future__ import annotations

import importlib
import importlib.util
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))


def guided(name: str, seconds: int) -> None:
    """Run a target with Atheris."""
    atheris: Any = importlib.import_module("atheris")

    with atheris.instrument_imports(include=["hedgerow.index", "hedgerow.live", "hedgerow.semantic"]):
        from fuzz.harness import TARGETS, seeds

    folder = Path(tempfile.mkdtemp(prefix="hedgerow-fuzz-"))
    seeds(folder / "seeds")
    (folder / "work").mkdir()

    def once(data: bytes) -> None:
        provider = atheris.FuzzedDataProvider(data)
        TARGETS[name](folder / "seeds", folder / "work", lambda count: provider.ConsumeIntInRange(0, count - 1))

    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", "-max_len=64", "-len_control=0", "-timeout=60"], once)
    atheris.Fuzz()


def unguided(name: str, seconds: int) -> None:
    """Run a target with random choices."""
    from fuzz.harness import TARGETS, seeds

    until, number = time.monotonic() + seconds, random.SystemRandom().randrange(2**60)
    with tempfile.TemporaryDirectory(prefix="hedgerow-fuzz-") as name_of_folder:
        folder = Path(name_of_folder)
        seeds(folder / "seeds")
        (folder / "work").mkdir()
        count = 0
        while time.monotonic() < until:
            number, count = number + 1, count + 1
            try:
                TARGETS[name](folder / "seeds", folder / "work", random.Random(number).randrange)
            except BaseException:
                print(f"failed with random.Random({number}).randrange")
                raise
        print(f"{name}: {count:,} mutated files without a failure")


if __name__ == "__main__":
    run = guided if importlib.util.find_spec("atheris") else unguided
    run(sys.argv[1], int(sys.argv[2]))
