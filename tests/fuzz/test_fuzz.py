"""A short run of the fuzz targets with fixed choices. `make fuzz` runs them longer, guided by coverage."""

import random

import pytest
from fuzz.harness import TARGETS, seeds


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    seeds(folder)
    return folder


@pytest.mark.parametrize(("target", "count"), [("index", 150), ("live", 60), ("quantizer", 60)])
def test_mutated_files_are_rejected_or_answer_correctly(folder, tmp_path, target, count):
    accepted = 0
    for number in range(count):
        # Print the number, so that a failure can be repeated.
        print(target, number)
        accepted += TARGETS[target](folder, tmp_path, random.Random(number).randrange)
    assert 0 < accepted < count
