"""Logit equilibria and their gradients over many environments: epijax, Numba, unrolled JAX and SciPy, in one run.

    python benchmarks/design.py [--cells 100000] [--sample 48] [--repeats 5]

Everybody solves the same random tables of four actions and 32 parameters (truths, beliefs and payoffs of three outcomes
drawn at random), in float64, for the principal branch: the one continued from uniform play at a high temperature. The
gradient is that of how often the first action is played, by the 32 log weights of the prior.

- Numba: each cell by itself on all cores, Newton's method along the same continuation, leaving each stage early.
- unrolled: JAX, the same continuation and Newton's steps in a fixed number, derivatives through all of them; with as
  many stages as epijax takes at first (lean), and with as many as it takes where these do not do (careful).
- SciPy: `root` along the same continuation, then again from the solution for a finite difference in each weight.

Solved is what NumPy finds to be a fixed point to 1e-10. Compile time is apart.
"""

import argparse
import os
import platform
import time
from functools import partial
from importlib.metadata import version

os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(len(os.sched_getaffinity(0))))

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numba import njit, prange
from scipy.optimize import root
from scipy.special import softmax

import epijax as ej
from epijax.smooth import Branch

A, K = 4, 32
STAGES, CAREFUL, POLISH = 24, 128, 12
SETTINGS = ((0.02, 100.0), (0.1, 10.0))


def draw(cells):
    rng = np.random.default_rng(0)
    truth = rng.dirichlet(np.ones(3), (cells, A, 1))
    beliefs = rng.dirichlet(np.ones(3), (cells, A, K))
    utility = np.einsum("caky,cay->cak", beliefs, rng.uniform(size=(cells, A, 3)))
    return utility, np.sum(truth * np.log(truth / beliefs), axis=-1)


def off(utility, divergence, temperature, observations, strategy):
    """|G(σ) − σ| of each cell, by NumPy."""
    belief = softmax(-observations * np.einsum("ca,cak->ck", strategy, divergence), axis=1)
    played = softmax(np.einsum("cak,ck->ca", utility, belief) / temperature, axis=1)
    return np.abs(played - strategy).max(axis=1)


def shared_out(function, devices, *arrays):
    """The function of arrays of cells, shared out among devices, where the arrays lie already."""
    spec = PartitionSpec("cells")
    mesh = Mesh(np.array(devices), ("cells",))
    run = jax.jit(jax.shard_map(function, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))
    there = jax.device_put(arrays, NamedSharding(mesh, spec))
    return lambda: jax.block_until_ready(run(*there))


def principal(temperature, observations, utility, divergence, log_prior):
    tables = ej.FiniteProblem(utility, divergence)
    found = ej.logit_equilibria(tables, temperature, observations, np.zeros((0, A)), log_prior=log_prior)
    return found.strategy[-1], found.status[-1]


def unrolled(temperature, observations, stages, utility, divergence, log_prior):
    """As one writes it: a scan of Newton's steps, the Jacobian by JAX."""

    def off(strategy, tau, many):
        belief = jax.nn.softmax(log_prior - many * (strategy @ divergence))
        return jax.nn.softmax(utility @ belief / tau) - strategy

    def step(strategy, stage):
        change = jnp.linalg.solve(jax.jacfwd(off)(strategy, *stage), -off(strategy, *stage))
        moved = jnp.maximum(strategy + change, 0)
        return moved / jnp.sum(moved), None

    share = jnp.minimum(jnp.arange(1, stages + POLISH + 1) / stages, 1)
    warm, few = 2 * (jnp.max(utility) - jnp.min(utility)), 1 / (jnp.max(divergence) - jnp.min(divergence))
    path = warm * (temperature / warm) ** share, few * (observations / few) ** share
    return jax.lax.scan(step, jnp.full(A, 1 / A), jax.lax.stop_gradient(path))[0]


@njit(inline="always")
def respond(utility, divergence, tau, many, strategy, belief, played, jacobian):
    """G(σ) and, where wanted, ∂G/∂σ; the largest |G(σ) − σ|."""
    most = -np.inf
    for k in range(K):
        total = 0.0
        for a in range(A):
            total -= many * strategy[a] * divergence[a, k]
        belief[k] = total
        most = max(most, total)
    total = 0.0
    for k in range(K):
        belief[k] = np.exp(belief[k] - most)
        total += belief[k]
    for k in range(K):
        belief[k] /= total
    most = -np.inf
    for a in range(A):
        worth = 0.0
        for k in range(K):
            worth += utility[a, k] * belief[k]
        played[a] = worth
        most = max(most, worth)
    for b in range(A):
        misfit = 0.0
        for k in range(K):
            misfit += divergence[b, k] * belief[k]
        for a in range(A):
            both = 0.0
            for k in range(K):
                both += utility[a, k] * divergence[b, k] * belief[k]
            jacobian[a, b] = both - played[a] * misfit
    total = 0.0
    for a in range(A):
        played[a] = np.exp((played[a] - most) / tau)
        total += played[a]
    residual = 0.0
    for a in range(A):
        played[a] /= total
        residual = max(residual, abs(played[a] - strategy[a]))
    for b in range(A):
        mean = 0.0
        for a in range(A):
            mean += played[a] * jacobian[a, b]
        for a in range(A):
            jacobian[a, b] = -many / tau * played[a] * (jacobian[a, b] - mean)
    return residual


@njit(inline="always")
def move(strategy, played, jacobian):
    """A step of Newton's method: (1 − ∂G/∂σ) step = G(σ) − σ, by elimination."""
    for a in range(A):
        for b in range(A):
            jacobian[a, b] = (1.0 if a == b else 0.0) - jacobian[a, b]
        played[a] -= strategy[a]
    for i in range(A):
        largest = i
        for a in range(i + 1, A):
            if abs(jacobian[a, i]) > abs(jacobian[largest, i]):
                largest = a
        if largest != i:
            for b in range(A):
                jacobian[i, b], jacobian[largest, b] = jacobian[largest, b], jacobian[i, b]
            played[i], played[largest] = played[largest], played[i]
        for a in range(i + 1, A):
            ratio = jacobian[a, i] / jacobian[i, i]
            for b in range(i, A):
                jacobian[a, b] -= ratio * jacobian[i, b]
            played[a] -= ratio * played[i]
    for i in range(A - 1, -1, -1):
        for b in range(i + 1, A):
            played[i] -= jacobian[i, b] * played[b]
        played[i] /= jacobian[i, i]
    total = 0.0
    for a in range(A):
        strategy[a] = max(strategy[a] + played[a], 0.0)
        total += strategy[a]
    for a in range(A):
        strategy[a] /= total


@njit(parallel=True, fastmath={"contract", "reassoc", "arcp"})
def numba_cells(utility, divergence, temperature, observations, stages, out):
    for c in prange(len(out)):
        belief, played, jacobian = np.empty(K), np.empty(A), np.empty((A, A))
        strategy = np.full(A, 1 / A)
        warm = 2 * (utility[c].max() - utility[c].min())
        few = 1 / (divergence[c].max() - divergence[c].min())
        for i in range(stages):
            share = (i + 1) / stages
            tau, many = warm * (temperature / warm) ** share, few * (observations / few) ** share
            last = i == stages - 1
            for _ in range(40 if last else 2):
                residual = respond(utility[c], divergence[c], tau, many, strategy, belief, played, jacobian)
                if residual < (1e-10 if last else 1e-3):
                    break
                move(strategy, played, jacobian)
        out[c] = strategy


def scipy_gradients(utility, divergence, temperature, observations):
    """Strategies and gradients of a few cells; NaN where `root` does not succeed."""
    strategies, gradients = [], []
    for u, d in zip(utility, divergence, strict=True):
        warm, few = 2 * np.ptp(u), 1 / np.ptp(d)

        def equilibrium(start, tau, many, log_prior, u=u, d=d):
            def excess(played):
                return softmax(u @ softmax(log_prior - many * (played @ d)) / tau) - played

            return root(excess, start, tol=1e-13).x

        strategy = np.full(A, 1 / A)
        for share in np.arange(1, STAGES + 1) / STAGES:
            tau, many = warm * (temperature / warm) ** share, few * (observations / few) ** share
            strategy = equilibrium(strategy, tau, many, np.zeros(K))
        moved = [equilibrium(strategy, temperature, observations, 1e-6 * row)[0] for row in np.eye(K)]
        strategies.append(strategy)
        gradients.append((np.array(moved) - strategy[0]) / 1e-6)
    return np.array(strategies), np.array(gradients)


def timed(jobs, repeats):
    """Medians of seconds, in turns; what was found; seconds of the first run beyond the median."""
    taken, first, found = {name: [] for name in jobs}, {}, {}
    for turn in range(repeats + 1):
        for name, (job, most) in jobs.items():
            if turn > most:
                continue
            start = time.perf_counter()
            found[name] = job()
            seconds = time.perf_counter() - start
            if turn:
                taken[name].append(seconds)
            else:
                first[name] = seconds
    seconds = {name: float(np.median(each or [first[name]])) for name, each in taken.items()}
    return seconds, found, {name: max(0.0, first[name] - seconds[name]) for name in jobs}


def compare(temperature, observations, cells, sample, repeats):
    utility, divergence = draw(cells)
    log_prior = np.zeros((cells, K))
    solve = partial(principal, temperature, observations)

    def first(of):
        def share(utility, divergence, log_prior):
            strategy = of(utility, divergence, log_prior)
            return strategy[0] if of is not solve else strategy[0][0], strategy

        return jax.vmap(jax.value_and_grad(share, argnums=2, has_aux=True))

    devices = jax.local_devices()
    arrays = utility, divergence, log_prior

    def in_blocks(stages, *arrays):
        through = first(partial(unrolled, temperature, observations, stages))
        blocks = jax.tree.map(lambda array: array.reshape(-1, 128, *array.shape[1:]), arrays)
        return jax.lax.map(lambda block: through(*block), blocks)

    block = 128 * len(devices)
    some = slice(0, max(block, cells // 16 // block * block))
    few = slice(0, sample)  # apart: the median of relative differences of gradients, where both are on one branch
    out = np.empty((cells, A))
    jobs = {
        "epijax": (shared_out(jax.vmap(solve), devices, *arrays), repeats),
        "one device": (shared_out(jax.vmap(solve), devices[:1], *arrays), repeats),
        "Numba": (lambda: numba_cells(utility, divergence, temperature, observations, 16, out), repeats),
        "gradient": (shared_out(first(solve), devices, *arrays), repeats),
        "lean": (shared_out(partial(in_blocks, STAGES), devices, *(array[some] for array in arrays)), 2),
        "careful": (shared_out(partial(in_blocks, CAREFUL), devices, *(array[some] for array in arrays)), 2),
        "SciPy": (lambda: scipy_gradients(utility[few], divergence[few], temperature, observations), 0),
    }
    seconds, found, compiling = timed(jobs, repeats)
    rates = {name: cells / seconds[name] for name in jobs}
    rates |= {name: (some.stop - some.start) / seconds[name] for name in ("lean", "careful")}
    rates["SciPy"] = sample / seconds["SciPy"]
    status = np.asarray(found["epijax"][1])
    strategies = {"epijax": np.asarray(found["epijax"][0]), "Numba": out, "SciPy": found["SciPy"][0]}
    strategies |= {name: np.asarray(found[name][0][1]).reshape(-1, A) for name in ("lean", "careful")}
    solved = {}
    for name, each in strategies.items():
        apart = off(utility[: len(each)], divergence[: len(each)], temperature, observations, each)
        solved[name] = np.mean(apart <= 1e-10)
    slopes = np.asarray(found["gradient"][1])
    differences = {}
    for name in ("lean", "careful", "SciPy"):
        other, count = np.asarray(found[name][1]).reshape(-1, K), len(strategies[name])
        same = np.abs(strategies[name] - strategies["epijax"][:count]).max(axis=1) < 1e-8
        same &= status[:count] == Branch.SOLVED
        scale = np.abs(slopes[:count][same]).max(axis=1)
        differences[name] = np.median(np.abs(other - slopes[:count])[same].max(axis=1) / scale), same.mean()
    return rates, solved, compiling, differences, seconds


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--sample", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    devices = jax.local_devices()
    cells = asked.cells // (128 * len(devices)) * 128 * len(devices)
    versions = ", ".join(f"{package} {version(package)}" for package in ("jax", "jaxlib", "numba", "numpy", "scipy"))
    print(
        f"{os.cpu_count()} cores ({platform.machine()}), {len(devices)} x {devices[0].device_kind}; Python "
        f"{platform.python_version()}, {versions}. {cells:,} cells, {A} actions, {K} parameters, float64; unrolled on "
        f"a sixteenth of them, SciPy on {asked.sample}; median of {asked.repeats}.\n"
    )
    rows = [compare(*setting, cells, asked.sample, asked.repeats) for setting in SETTINGS]
    print("| τ, N | epijax kcells/s | / Numba | 1 → n devices | solved: epijax, Numba | compile s: epijax, Numba |")
    print("|---|---|---|---|---|---|")
    for (temperature, observations), (rates, solved, compiling, _, _) in zip(SETTINGS, rows, strict=True):
        print(
            f"| {temperature:g}, {observations:g} | {rates['epijax'] / 1e3:.0f} "
            f"| {rates['epijax'] / rates['Numba']:.2f} "
            f"| {rates['epijax'] / rates['one device']:.2f} | {solved['epijax']:.3%}, {solved['Numba']:.3%} "
            f"| {compiling['epijax']:.1f}, {compiling['Numba']:.1f} |"
        )
    print("\n| τ, N | kgradients/s | and value / value | compile s | rival | ratio | solved by it | apart | of |")
    print("|---|---|---|---|---|---|---|---|---|")
    for (temperature, observations), (rates, solved, compiling, apart, seconds) in zip(SETTINGS, rows, strict=True):
        for name, told in (("lean", "unrolled, lean"), ("careful", "unrolled, careful"), ("SciPy", "SciPy")):
            print(
                f"| {temperature:g}, {observations:g} | {rates['gradient'] / 1e3:.0f} "
                f"| {seconds['gradient'] / seconds['epijax']:.2f} | {compiling['gradient']:.1f} | {told} "
                f"| {rates['gradient'] / rates[name]:,.1f} | {solved[name]:.2%} | {apart[name][0]:.0e} "
                f"| {apart[name][1]:.1%} |"
            )


if __name__ == "__main__":
    main()
