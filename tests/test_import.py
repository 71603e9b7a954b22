"""Importing hedgerow loads NumPy and nothing heavier."""

import subprocess
import sys

HEAVY = (
    "torch jax pyarrow transformers tokenizers safetensors typer rich pandas polars array_api_compat "
    "faiss sentence_transformers"
)


def loaded_after(code: str) -> list[str]:
    program = f"{code}\nimport sys\nprint([name for name in {HEAVY.split()} if name in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return eval(finished.stdout)


def test_import_loads_only_numpy():
    assert loaded_after("import hedgerow") == []


def test_searching_with_numpy_loads_no_framework():
    code = """
import numpy as np, hedgerow as hr
index = hr.build_index(hr.Catalog([[0, 1], [1, 0]]))
hr.beam_search(index, lambda beams: np.zeros((*beams.states.shape, 2)), batch_size=1, beam_width=2)
"""
    assert loaded_after(code) == ["array_api_compat"]


def test_public_names_exist_and_are_sorted():
    import hedgerow as hr

    for module in (hr, hr.metrics):
        assert all(hasattr(module, name) for name in module.__all__)
        assert sorted(module.__all__) == module.__all__


def test_loading_an_index_does_not_load_pandas(tmp_path):
    import hedgerow as hr

    hr.build_index(hr.Catalog([[0, 1], [1, 0]], attributes={"year": [1, 2]})).save(tmp_path / "x")
    code = f"import hedgerow as hr; print(len(hr.load_index({str(tmp_path / 'x')!r}).attributes), file=sys.stderr)"
    assert "pandas" not in loaded_after(f"import sys; {code}")
