import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Parallel test processes use one thread each: two workers with two threads on two cores would block each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Every run uses the same examples. `make explore` searches for new ones.
settings.register_profile("fixed", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "explore", deadline=None, max_examples=1000, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

DATA = Path(__file__).parents[2] / "shared" / "data"
REAL = {
    "beauty-rqvae": ("amazon_beauty_2014", "sid_rqvae"),
    "beauty-rqkmeans": ("amazon_beauty_2014", "sid_rqkmeans"),
    "beauty-letter": ("amazon_beauty_2014", "sid_letter"),
    "beauty-iba": ("amazon_beauty_2014", "sid_iba"),
    "office-minionerec": ("amazon_office_2018", "sid_minionerec"),
}


@pytest.fixture(params=REAL)
def real_catalog(request: pytest.FixtureRequest):
    import hedgerow as hr

    folder, column = REAL[request.param]
    path = DATA / folder / "items.parquet"
    if not path.exists():
        pytest.skip(f"the data of the real catalog {folder} are not installed in ../shared/data")
    return hr.Catalog.from_parquet(path, sid=column, attributes=[])


# The others take twice as long as all other tests: make test-layouts.
LAYOUTS = ("compact", "split") if os.environ.get("HEDGEROW_TEST_LAYOUTS") else ("plain",)


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The layout of every index that a test builds: see `support.lay_out`."""
    from support import lay_out

    lay_out(request.param, monkeypatch)
    return request.param
