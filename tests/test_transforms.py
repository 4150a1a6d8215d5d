"""One cell under every transformation: the same bits, one trace, and a program for every kind of device."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

import epijax as ej
from epijax import learning, safety
from epijax.smooth import smooth_tables
from epijax.sweeps import job
from epijax.sweeps.engine import Engine
from epijax.sweeps.grid import make_grid

CELLS = 8 * 64
DRAW = np.random.default_rng(0).uniform(0, 1, (CELLS, 3))
BUILDS = {
    "sycophancy": lambda v: ej.models.sycophancy(v[0], v[1], reward_agree=0.5 + v[2]),
    "deception": lambda v: ej.models.deception(v[0], upper=v[1], exploration=jnp.maximum(v[2] - 0.5, 0)),
    "tables": lambda v: ej.tabulate(ej.models.sycophancy(v[0], v[1], exploration=0.2 * v[2]), 12),
}


@pytest.mark.parametrize("name", BUILDS)
def test_the_same_bits_under_jit_vmap_shard_map_and_pmap(name):
    assert jax.local_device_count() == 8
    batch = jax.jit(jax.vmap(BUILDS[name]))(DRAW)
    mapped = jax.vmap(ej.solve)
    expected = jax.jit(mapped)(batch)
    statuses = np.asarray(expected.status)
    assert len(np.unique(np.asarray(ej.phase(expected, batch.unsafe)))) >= 3, "the rows must differ"
    assert (statuses == ej.Status.SOLVED).mean() > 0.9

    mesh = Mesh(np.array(jax.devices()), ("cells",))
    spec = PartitionSpec("cells")
    sharded = jax.jit(jax.shard_map(mapped, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))(batch)
    assert len(sharded.margin.sharding.device_set) == 8
    chex.assert_trees_all_equal(expected, sharded)

    split = jax.tree.map(lambda leaf: leaf.reshape(8, -1, *leaf.shape[1:]), batch)
    pieces = jax.pmap(mapped)(split)
    chex.assert_trees_all_equal(expected, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), pieces))

    alone = jax.jit(ej.solve)
    for i in range(0, CELLS, 37):
        one = alone(jax.tree.map(lambda leaf: leaf[i], batch))  # noqa: B023
        mine = jax.tree.map(lambda leaf: leaf[i], expected)  # noqa: B023
        chex.assert_trees_all_close(mine, one, rtol=1e-15)  # jax 0.12 may round the last digit otherwise


def test_solve_works_without_jit_and_says_the_same():
    problem = ej.models.sycophancy(0.7, 0.6)
    chex.assert_trees_all_close(ej.solve(problem), jax.jit(ej.solve)(problem), rtol=1e-14)


@pytest.mark.parametrize(("dtype", "expected"), [("float64", 1), ("float32", 1)])
def test_a_sweep_traces_its_build_once(dtype, expected, monkeypatch):
    monkeypatch.setattr(job, "TILE_SIDE", 1024)
    traces = []

    def build(p_agree, p_honest):
        if isinstance(p_agree, jax.core.Tracer):
            traces.append(1)
        return ej.models.sycophancy(p_agree, p_honest)

    axes = {"p_agree": np.linspace(0, 1, 1500), "p_honest": np.linspace(0, 1, 1100)}  # four tiles, no tie
    dataset = ej.sweep(build, axes, dtype=dtype)
    assert dataset.attrs["rechecked"] == 0
    assert len(traces) == expected


def test_rechecking_in_float64_costs_one_more_trace_however_many_tiles(monkeypatch):
    monkeypatch.setattr(job, "TILE_SIDE", 1024)
    traces = []

    def build(p_agree, p_honest):
        if isinstance(p_agree, jax.core.Tracer):
            traces.append(1)
        return ej.models.sycophancy(p_agree, p_honest)

    axes = {"p_agree": np.linspace(0, 1, 1501), "p_honest": np.linspace(0, 1, 1101)}  # ties along two lines
    assert ej.sweep(build, axes).attrs["rechecked"] > 2000
    assert len(traces) == 2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("model", ej.models.X26)
def test_sweep_kernels_lower_for_every_platform(model, dtype):
    entry = ej.models.MODELS[model]
    grid = make_grid({key: np.linspace(*span, 64) for key, span in entry.axes.items()}, 1 << 20, 1024)
    engine = Engine(entry.build, {"exploration": 0.1}, grid, dtype, (True, False))
    with jax.enable_x64(dtype == "float64"):
        exported = jax.export.export(engine.program, platforms=("cpu", "cuda", "rocm", "tpu"))(*engine.shapes)
    _assert_portable(exported.mlir_module())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_table_solver_lowers_for_every_platform(dtype):
    def kernel(utility, divergence):
        return jax.vmap(lambda u, k: ej.solve(ej.FiniteProblem(u, k)))(utility, divergence)

    with jax.enable_x64(dtype == "float64"):
        shape = jax.ShapeDtypeStruct((32, 2, 9), dtype)
        exported = jax.export.export(jax.jit(kernel), platforms=("cpu", "cuda", "rocm", "tpu"))(shape, shape)
    _assert_portable(exported.mlir_module())


# normal noise in float64 takes bit casts, so real outcomes in float64 are for CPUs and GPUs alone
@pytest.mark.parametrize(
    ("model", "dtype"), [("sycophancy", "float32"), ("sycophancy", "float64"), ("monopolist", "float32")]
)
def test_learners_lower_for_every_platform(model, dtype):
    def kernel(prior, words):
        problem = ej.models.sycophancy(0.3, 0.2, exploration=0.1) if model == "sycophancy" else ej.models.monopolist()
        tables, stops = learning.tables_of(problem, 25), jnp.array([8, 16], jnp.int32)
        habits = (0.1, 1.0, None) if model == "sycophancy" else (0.0, 0.9, None)
        return learning.learn(tables, prior[:, None], words, jnp.arange(9, dtype=jnp.uint32), stops, habits)

    with jax.enable_x64(dtype == "float64"):
        shapes = jax.ShapeDtypeStruct((25,), dtype), jax.ShapeDtypeStruct((2,), "uint32")
        exported = jax.export.export(jax.jit(kernel), platforms=("cpu", "cuda", "rocm", "tpu"))(*shapes)
    _assert_portable(exported.mlir_module())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logit_equilibria_and_what_designs_descend_lower_for_every_platform(dtype):
    def kernel(utility, divergence, upper):
        def worst(utility):
            problem = ej.FiniteProblem(utility, divergence)
            return safety.unsafe_mass(smooth_tables(problem, 0.02, 100.0), (True, False, False))[0]

        coupled = partial(ej.models.sycophancy, 0.6, 0.7, coupling=0.5)
        return jax.grad(worst)(utility), jax.grad(lambda upper: ej.safety_margin(coupled(upper=upper)))(upper)

    with jax.enable_x64(dtype == "float64"):
        shapes = [jax.ShapeDtypeStruct(shape, dtype) for shape in ((3, 9), (3, 9), ())]
        exported = jax.export.export(jax.jit(kernel), platforms=("cpu", "cuda", "rocm", "tpu"))(*shapes)
    _assert_portable(exported.mlir_module())


def test_learners_under_jit_and_vmap_are_those_without():
    def counts(p, log_prior):
        found = ej.simulate(ej.models.sycophancy(p, 0.2), log_prior, jax.random.key(0), 64, 5)
        return found.plays, found.statistics

    chances, log_prior = jnp.array([0.3, 0.6, 0.9]), jnp.zeros(17)
    many = jax.vmap(counts, in_axes=(0, None))(chances, log_prior)
    for i, p in enumerate(chances):
        alone = counts(float(p), log_prior)
        chex.assert_trees_all_equal(jax.tree.map(lambda leaf: leaf[i], many), alone)  # noqa: B023
        chex.assert_trees_all_equal(jax.jit(counts)(p, log_prior), alone)


def test_gradients_of_the_margin_match_finite_differences():
    def margin(values):
        problem = ej.models.sycophancy(values[0], values[1], reward_agree=values[2], exploration=values[3])
        return ej.solve(problem).margin

    point = jnp.array([0.83, 0.64, 1.3, 0.07])
    numeric = [(margin(point.at[i].add(1e-6)) - margin(point.at[i].add(-1e-6))) / 2e-6 for i in range(4)]
    np.testing.assert_allclose(jax.grad(margin)(point), numeric, rtol=1e-6)


def _assert_portable(module: str) -> None:
    """No call into a library or the host, and no bit cast of float64, which TPUs cannot emulate."""
    calls = [line for line in module.splitlines() if "custom_call" in line]
    allowed = ("@Sharding", "@SPMDFullToShardShape", "@SPMDShardToFullShape", "@shape_assertion")
    assert not [line for line in calls if not any(name in line for name in allowed)]
    assert not [line for line in module.splitlines() if "bitcast_convert" in line and "f64" in line]
