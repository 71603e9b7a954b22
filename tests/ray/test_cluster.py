"""Tasks of Ray, and what goes wrong in its processes."""

import os
from collections.abc import Callable

import pytest

import hedgerow as hr
from hedgerow.ray.cluster import own_errors, run_tasks


@pytest.fixture
def square() -> Callable[[int], int]:
    # A function of a function is sent as it is: processes of Ray cannot import this module.
    def squared(number: int) -> int:
        if number == 3:
            raise hr.CatalogError("three")
        return number * number

    return squared


def test_results_have_the_order_of_the_tasks(square):
    done: list[int] = []
    found = run_tasks(square, [(number,) for number in (5, 4, 2, 1)], workers=2, done=done.append)
    assert found == [25, 16, 4, 1]
    assert sorted(done) == [0, 1, 2, 3]


def test_an_error_of_a_process_is_raised_as_it_was_there(square):
    with pytest.raises(hr.CatalogError, match=r"^three$"), own_errors():
        run_tasks(square, [(number,) for number in range(9)], workers=2, done=lambda _: None)


def test_a_process_that_ends():
    def end() -> None:
        os._exit(1)

    with pytest.raises(hr.BackendError, match="a process of Ray ended"), own_errors():
        run_tasks(end, [()], workers=1, done=lambda _: None)
