"""Programs that run in several processes of torch.distributed on this machine, over gloo."""

import os
import subprocess
import sys
from pathlib import Path

SETUP = """
import os, numpy as np, torch, torch.distributed as dist
import hedgerow as hr

RANK, RANKS = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def assert_same_on_all_ranks(*arrays):
    # Equal bytes, not only close values.
    mine, of_ranks = [np.asarray(array).tobytes() for array in arrays], [None] * RANKS
    dist.all_gather_object(of_ranks, mine)
    assert all(theirs == mine for theirs in of_ranks)

"""


END = """
dist.destroy_process_group()
# One write, so that lines of two processes do not mix.
os.write(1, f"rank {RANK}\\n".encode())
"""


def run_in_processes(program: str, folder: Path, *, count: int = 2) -> None:
    """Run a program to its end in `count` processes in a folder. It can import from tests/."""
    (folder / "program.py").write_text(SETUP + program + END)
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    variables = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "program.py"]
    finished = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | variables, cwd=folder, check=False, timeout=300
    )
    assert finished.returncode == 0, finished.stderr
    assert sorted(finished.stdout.splitlines()) == [f"rank {rank}" for rank in range(count)]
