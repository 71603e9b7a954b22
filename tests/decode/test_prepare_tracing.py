"""Constraints in compilers: changing them does not trigger recompilation."""

import numpy as np
import pytest
from support import FakeModel

import hedgerow as hr
from hedgerow.decode.ops import to_numpy

SIZES, WIDTH, BATCH = (8, 40, 300, 9), 12, 3


@pytest.fixture(scope="module")
def index():
    rng = np.random.default_rng(0)
    sids = np.stack([rng.integers(0, size, 500) for size in SIZES], axis=1)
    return hr.build_index(hr.Catalog(sids, codebook_sizes=SIZES))


@pytest.fixture(scope="module")
def rules(index):
    """Different sets and exclusions of equal sizes: two sets per batch, and up to 16 excluded items per request."""
    rng = np.random.default_rng(1)
    sets = [index.constraint(rng.random(500) < share, order="index") for share in (0.5, 0.1, 0.9, 0.0)]
    few = [rng.permutation(500)[:count].tolist() for count in (1, 9, 16)]
    return [
        {"constraints": [sets[0], None, sets[1]], "exclude": [few[0], None, None]},
        {"constraints": [sets[2], sets[3], None], "exclude": [None, few[1], few[2]]},
        {"constraints": [sets[1], sets[2], sets[2]], "exclude": [few[2], few[2], few[0]]},
    ]


def expected_of(index, rule):
    return hr.beam_search(index, FakeModel(SIZES), batch_size=BATCH, beam_width=WIDTH, **rule)


def assert_same(beams, expected):
    np.testing.assert_allclose(to_numpy(beams.scores), expected.scores, rtol=1e-5, atol=1e-5)
    assert (to_numpy(beams.codes) == expected.codes).all()


def test_jax_jit_compiles_each_level_once(index, rules):
    jax = pytest.importorskip("jax")
    device_index, model, traces = index.to("jax"), FakeModel(SIZES), []

    @jax.jit
    def step(device_index, beams, logits, constraints):
        traces.append(beams.level)
        return hr.step(device_index, beams, logits, beam_width=WIDTH, constraints=constraints)

    for rule in rules:
        prepared, beams = hr.prepare_constraints(device_index, BATCH, **rule), hr.init_beams(device_index, BATCH)
        for _ in SIZES:
            beams = step(device_index, beams, jax.numpy.asarray(model(beams)), prepared)
        assert_same(beams, expected_of(index, rule))
    assert traces == list(range(len(SIZES)))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torch_compile_compiles_each_level_once(index, rules):
    torch = pytest.importorskip("torch")
    from torch._dynamo.testing import CompileCounterWithBackend

    torch.compiler.reset()
    # Recompilation is decided before code is generated, so none needs to be generated.
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(hr.step, fullgraph=True, dynamic=False, backend=counter)
    device_index, model = index.to("torch"), FakeModel(SIZES)
    for rule in rules:
        prepared, beams = hr.prepare_constraints(device_index, BATCH, **rule), hr.init_beams(device_index, BATCH)
        for _ in SIZES:
            logits = torch.from_numpy(model(beams))
            beams = compiled(device_index, beams, logits, beam_width=WIDTH, constraints=prepared)
        assert_same(beams, expected_of(index, rule))
        assert counter.frame_count == len(SIZES)


@pytest.mark.parametrize("fullgraph", [True, False])
@pytest.mark.parametrize("names", [["constraints"], ["exclude"], ["constraints", "exclude"], ["one"]])
def test_torch_compile_refuses_rules_that_are_not_prepared(index, rules, names, fullgraph):
    torch = pytest.importorskip("torch")
    torch.compiler.reset()
    device_index = index.to("torch")
    rule = {"one": {"constraints": rules[0]["constraints"][0]}}.get(names[0], {n: rules[0].get(n) for n in names})
    beams, logits = hr.init_beams(device_index, BATCH), torch.zeros(BATCH, 1, SIZES[0])
    compiled = torch.compile(hr.step, fullgraph=fullgraph, backend="eager")
    with pytest.raises(
        hr.ConstraintError, match=r"inside torch\.compile\. Prepare them outside.*hr\.prepare_constrain"
    ):
        compiled(device_index, beams, logits, beam_width=WIDTH, **rule)
    # The same function runs with prepared rules.
    prepared = hr.prepare_constraints(device_index, BATCH, **rule)
    found = compiled(device_index, beams, logits, beam_width=WIDTH, constraints=prepared)
    expected = hr.step(device_index, beams, logits, beam_width=WIDTH, **rule)
    assert torch.equal(found.codes, expected.codes)


def test_torch_export_accepts_other_constraints(index, rules):
    torch = pytest.importorskip("torch")
    device_index, model = index.to("torch"), FakeModel(SIZES)

    class Step(torch.nn.Module):
        def forward(self, beams, logits, constraints):
            return hr.step(device_index, beams, logits, beam_width=WIDTH, constraints=constraints)

    programs: dict = {}
    for rule in rules:
        prepared, beams = hr.prepare_constraints(device_index, BATCH, **rule), hr.init_beams(device_index, BATCH)
        for level in range(len(SIZES)):
            inputs = (beams, torch.from_numpy(model(beams)), prepared)
            if level not in programs:
                programs[level] = torch.export.export(Step(), inputs, strict=True).module()
            beams = programs[level](*inputs)
        assert_same(beams, expected_of(index, rule))


def test_jax_export_for_cpu_cuda_and_tpu(index, rules):
    jax = pytest.importorskip("jax")
    device_index, model = index.to("jax"), FakeModel(SIZES)

    @jax.jit
    def step(beams, logits, constraints):
        return hr.step(device_index, beams, logits, beam_width=WIDTH, constraints=constraints)

    programs: dict = {}
    for rule in rules[:2]:
        prepared, beams = hr.prepare_constraints(device_index, BATCH, **rule), hr.init_beams(device_index, BATCH)
        for level in range(len(SIZES)):
            inputs = (beams, jax.numpy.asarray(model(beams)), prepared)
            if level not in programs:
                exported = jax.export.export(step, platforms=["cpu", "cuda", "tpu"])(*inputs)
                programs[level] = jax.export.deserialize(exported.serialize())
            beams = programs[level].call(*inputs)
        assert_same(beams, expected_of(index, rule))


def test_without_constraints_the_program_has_no_additional_operations(index):
    jax = pytest.importorskip("jax")
    from hedgerow.decode.kernels.array import StepInput, array_step

    device_index = index.to("jax")
    beams = hr.init_beams(device_index, BATCH)
    logits = jax.numpy.zeros((BATCH, 1, SIZES[0]))

    def plain(beams, logits):
        return array_step(StepInput(device_index._ops, device_index.levels[0], beams, logits, WIDTH, "codes", None))

    def step(beams, logits):
        return hr.step(device_index, beams, logits, beam_width=WIDTH, constraints=None)

    assert str(jax.make_jaxpr(step)(beams, logits)) == str(jax.make_jaxpr(plain)(beams, logits))
