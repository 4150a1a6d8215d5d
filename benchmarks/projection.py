"""KL projections on boxes by the hundred thousand: epijax against SciPy in a loop and Newton steps by hand in Numba.

The claim: projections a second of each family, at least a hundred times SciPy's and as many as those of a compiled loop
written for the family, to the optimality conditions.

Everybody minimises the same weighted divergences of three actions over the same boxes, of which many minima lie on a
face. SciPy's L-BFGS-B is given the gradient, a problem at a time on one core as it is made; Numba takes projected
Newton steps with derivatives by hand, early exit and a backtracking search, on all cores; epijax shards the batch over
as many CPU devices as there are cores. A `Custom` family is the same logits as one function, without derivatives, and
is searched from many starts, since nobody says that it is convex. All run in one process, float64, medians.

    python benchmarks/projection.py            # some two minutes on two cores
    python benchmarks/projection.py --quick
"""

import argparse
import os
import platform
import time
from functools import partial

import jax
import jaxlib
import numba
import numpy as np
import scipy
from jax.sharding import Mesh, PartitionSpec
from numba import njit, prange
from scipy.optimize import minimize

import epijax as ej

NUM_ACTIONS = 3
BERNOULLI, GAUSSIAN, LOGITS = 0, 1, 2
FAMILIES = {  # kind, parameters, problems
    "AffineBernoulli, 1 parameter": (BERNOULLI, 1, 400_000),
    "AffineBernoulli, 2 parameters": (BERNOULLI, 2, 200_000),
    "AffineBernoulli, 4 parameters": (BERNOULLI, 4, 40_000),
    "GaussianLinear, 2 parameters": (GAUSSIAN, 2, 200_000),
    "Categorical of 3, 2 parameters": (LOGITS, 2, 200_000),
    "Custom of 3, 2 parameters": (LOGITS, 2, 4_000),
}


def draw(kind, dimensions, count, seed=0):
    """Predictors start + rates·u of the unit cube, `[N, A, R]` and `[N, A, R, D]`, the truth `[N, A, R]`, weights."""
    rng = np.random.default_rng([seed, kind, dimensions])
    rows = 3 if kind == LOGITS else 1
    rates = rng.normal(size=(count, NUM_ACTIONS, rows, dimensions))
    weights = rng.dirichlet(np.ones(NUM_ACTIONS), count)
    if kind == LOGITS:
        return rng.normal(size=rates.shape[:3]), rates, rng.dirichlet(np.ones(3), (count, NUM_ACTIONS)), weights
    if kind == GAUSSIAN:
        return rng.normal(size=rates.shape[:3]), rates, rng.normal(size=rates.shape[:3]), weights
    rates *= rng.uniform(0.3, 0.98, rates.shape[:3])[..., None] / np.abs(rates).sum(-1, keepdims=True)
    low, high = np.minimum(rates, 0).sum(-1), np.maximum(rates, 0).sum(-1)
    return rng.uniform(0.01 - low, 0.99 - high), rates, rng.uniform(0, 1, rates.shape[:3]), weights


# Numba by hand


@njit
def value(kind, start, rates, truth, weights, u):
    """The weighted divergence but for what does not depend on u."""
    total = 0.0
    rows, dimensions = rates.shape[1], rates.shape[2]
    for x in range(NUM_ACTIONS):
        if kind == LOGITS:
            peak, mean, norm = -np.inf, 0.0, 0.0
            for r in range(rows):
                z = start[x, r]
                for d in range(dimensions):
                    z += rates[x, r, d] * u[d]
                peak = max(peak, z)
                mean += truth[x, r] * z
            for r in range(rows):
                z = start[x, r]
                for d in range(dimensions):
                    z += rates[x, r, d] * u[d]
                norm += np.exp(z - peak)
            total += weights[x] * (peak + np.log(norm) - mean)
        else:
            z, q = start[x, 0], truth[x, 0]
            for d in range(dimensions):
                z += rates[x, 0, d] * u[d]
            if kind == GAUSSIAN:
                total += weights[x] * 0.5 * (z - q) ** 2
            else:
                total -= weights[x] * (q * np.log(z) + (1 - q) * np.log(1 - z))
    return total


@njit
def derivatives(kind, start, rates, truth, weights, u, slope, curvature):
    rows, dimensions = rates.shape[1], rates.shape[2]
    slope[:], curvature[:] = 0.0, 0.0
    believed, centre = np.empty(3), np.empty(4)
    for x in range(NUM_ACTIONS):
        for r in range(rows):
            believed[r] = start[x, r]
            for d in range(dimensions):
                believed[r] += rates[x, r, d] * u[d]
        centre[:] = 0.0
        if kind == LOGITS:
            peak, norm = max(believed[0], max(believed[1], believed[2])), 0.0
            for r in range(rows):
                believed[r] = np.exp(believed[r] - peak)
                norm += believed[r]
            for r in range(rows):
                believed[r] /= norm
                for d in range(dimensions):
                    centre[d] += believed[r] * rates[x, r, d]
        for r in range(rows):
            p, q = believed[r], truth[x, r]
            if kind == BERNOULLI:
                first, second = (1 - q) / (1 - p) - q / p, (1 - q) / (1 - p) ** 2 + q / p**2
            else:
                first, second = p - q, p if kind == LOGITS else 1.0
            for d in range(dimensions):
                slope[d] += weights[x] * first * rates[x, r, d]
                for e in range(d + 1):
                    both = (rates[x, r, d] - centre[d]) * (rates[x, r, e] - centre[e])
                    curvature[d, e] += weights[x] * second * both
    for d in range(dimensions):
        for e in range(d):
            curvature[e, d] = curvature[d, e]


@njit
def newton(kind, start, rates, truth, weights, u):
    dimensions = rates.shape[2]
    slope, curvature = np.empty(dimensions), np.empty((dimensions, dimensions))
    way, trial, body = np.empty(dimensions), np.empty(dimensions), np.empty((dimensions, dimensions))
    u[:] = 0.5
    current = value(kind, start, rates, truth, weights, u)
    for _ in range(100):
        derivatives(kind, start, rates, truth, weights, u, slope, curvature)
        steepest, residual = 1e-300, 0.0
        for d in range(dimensions):
            steepest = max(steepest, curvature[d, d])
        for d in range(dimensions):
            residual = max(residual, abs(u[d] - min(1.0, max(0.0, u[d] - slope[d] / steepest))))
        if residual <= 1e-12:
            return
        for d in range(dimensions):
            free = not ((u[d] <= 0 and slope[d] > 0) or (u[d] >= 1 and slope[d] < 0))
            way[d] = -slope[d] if free else 0.0
            for e in range(dimensions):
                body[d, e] = curvature[d, e] if free else 0.0
        for d in range(dimensions):
            if (u[d] <= 0 and slope[d] > 0) or (u[d] >= 1 and slope[d] < 0):
                body[:, d] = 0.0
                body[d, d] = 1.0
            else:
                body[d, d] += 1e-13 * steepest
        for j in range(dimensions):  # positive definite: no pivots
            for i in range(j + 1, dimensions):
                factor = body[i, j] / body[j, j]
                for k in range(j, dimensions):
                    body[i, k] -= factor * body[j, k]
                way[i] -= factor * way[j]
        for j in range(dimensions - 1, -1, -1):
            for k in range(j + 1, dimensions):
                way[j] -= body[j, k] * way[k]
            way[j] /= body[j, j]
        share, moved = 1.0, False
        for _ in range(40):
            for d in range(dimensions):
                trial[d] = min(1.0, max(0.0, u[d] + share * way[d]))
            there = value(kind, start, rates, truth, weights, trial)
            if there <= current + 1e-15 * abs(current):
                u[:], current, moved = trial, there, True
                break
            share *= 0.5
        if not moved:
            for d in range(dimensions):
                u[d] = min(1.0, max(0.0, u[d] - slope[d] / steepest))
            current = value(kind, start, rates, truth, weights, u)


@njit(parallel=True)
def by_numba(kind, start, rates, truth, weights, places):
    for i in prange(len(start)):
        newton(kind, start[i], rates[i], truth[i], weights[i], places[i])


# SciPy, one at a time


def by_scipy(kind, start, rates, truth, weights):
    dimensions = rates.shape[-1]

    def both(u):
        z = start + rates @ u
        if kind == LOGITS:
            believed = np.exp(z - z.max(axis=1, keepdims=True))
            norm = believed.sum(axis=1, keepdims=True)
            level = z.max(axis=1) + np.log(norm[:, 0]) - (truth * z).sum(axis=1)
            first = believed / norm - truth
        elif kind == GAUSSIAN:
            level, first = 0.5 * (z - truth)[:, 0] ** 2, z - truth
        else:
            level = -(truth * np.log(z) + (1 - truth) * np.log(1 - z))[:, 0]
            first = (1 - truth) / (1 - z) - truth / z
        return weights @ level, np.einsum("x,xr,xrd->d", weights, first, rates)

    found = minimize(
        both, np.full(dimensions, 0.5), jac=True, method="L-BFGS-B", bounds=[(0, 1)] * dimensions, options={"ftol": 0}
    )
    return found.x


# epijax


def build(name, kind, start, rates, truth):
    box = 0.0, 1.0
    if kind == GAUSSIAN:
        # a constant belongs to the truth as well as to the belief
        environment = ej.GaussianEnvironment((truth - start)[:, 0], 1.0, np.zeros(NUM_ACTIONS), np.ones(NUM_ACTIONS))
        return ej.Problem(environment, ej.GaussianLinear(rates[:, 0], 1.0, *box))
    if kind == BERNOULLI:
        law = jax.numpy.concatenate([1 - truth, truth], axis=1)
        return ej.Problem(ej.Environment(law, law), ej.AffineBernoulli(start[:, 0], rates[:, 0], *box))
    if name.startswith("Custom"):
        dimensions = rates.shape[-1]
        family = ej.Custom(
            lambda theta: jax.nn.log_softmax(start + rates @ theta, axis=-1), np.zeros(dimensions), np.ones(dimensions)
        )
    else:
        family = ej.Categorical(start, rates, *box)
    return ej.Problem(ej.Environment(truth, truth), family)


def compiled(name, kind, given):
    def best(start, rates, truth, weights):
        found = ej.best_fit(build(name, kind, start, rates, truth), weights)
        return found.theta, found.converged

    mesh, spec = Mesh(np.array(jax.devices()), ("cells",)), PartitionSpec("cells")
    sharded = jax.shard_map(jax.vmap(best), mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    begin = time.perf_counter()
    program = jax.jit(sharded).lower(*given).compile()
    return program, time.perf_counter() - begin


def timed(function, repeats):
    result, times = function(), []
    for _ in range(repeats):
        begin = time.perf_counter()
        result = jax.block_until_ready(function())
        times.append(time.perf_counter() - begin)
    return result, float(np.median(times))


def compare(name, kind, dimensions, count, repeats):
    arrays = draw(kind, dimensions, count)
    places = np.empty((count, dimensions))
    by_numba(kind, *(array[:2] for array in arrays), places[:2])
    _, by_hand = timed(lambda: by_numba(kind, *arrays, places), repeats)
    given = [jax.numpy.asarray(array) for array in arrays]
    program, seconds = compiled(name, kind, given)
    (found, converged), ours = timed(lambda: program(*given), repeats)
    few = min(count, 1000)
    begin = time.perf_counter()
    theirs = [by_scipy(kind, *(array[i] for array in arrays)) for i in range(few)]
    loop = (time.perf_counter() - begin) / few

    def worst(others, number):
        """How much more the divergence is at our answers than at theirs, and the other way round, at most."""
        at = partial(value, kind)
        ahead = [
            at(*(array[i] for array in arrays), np.asarray(found[i])) - at(*(array[i] for array in arrays), others[i])
            for i in range(number)
        ]
        return f"{max(0, *ahead):.0e}, {max(0, *(-a for a in ahead)):.0e}"

    found = np.asarray(found)
    cells = [name, f"{count / ours:,.0f}", f"{loop * count / ours:,.0f}", f"{by_hand / ours:.2f}"]
    cells += [f"{np.mean(converged):.2%}", worst(theirs, few), worst(places, min(count, 20_000)), f"{seconds:.1f}"]
    print("| " + " | ".join(cells) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description="KL projections on boxes against SciPy and Numba; see the docstring.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the problems, three repeats")
    quick = parser.parse_args().quick
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    jax.config.update("jax_num_cpu_devices", cores)
    jax.config.update("jax_enable_x64", True)
    numba.set_num_threads(cores)
    print(
        f"{cores} cores ({platform.machine()}), {len(jax.devices())} devices; Python {platform.python_version()}, "
        f"jax {jax.__version__}, jaxlib {jaxlib.__version__}, numba {numba.__version__}, scipy {scipy.__version__}\n"
    )
    print(
        "| family | epijax projections/s | / SciPy | / Numba | converged | nats above SciPy's, below | nats above "
        "Numba's, below | compile s |"
    )
    print("|" + "---|" * 8)
    for name, (kind, dimensions, count) in FAMILIES.items():
        compare(name, kind, dimensions, count // 10 if quick else count, 3 if quick else 9)


if __name__ == "__main__":
    main()
