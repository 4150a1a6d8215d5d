"""Learners by the ten thousand: rounds a second of epijax against NumPy over learners and Numba by hand, in one run.

    python benchmarks/learning.py [--learners 10240] [--rounds 2000] [--parameters 64] [--repeats 5]

Everybody simulates myopic Bayesians of the sycophancy model where both actions are equilibria, from the same prior:
NumPy all learners at a time, Numba learner by learner on all cores (`natural`: log weights carried along, as one would
write it; `counts`: counts of outcomes, as epijax keeps them), each with its own random numbers. That they do the same
is told by the share of learners who end in agreeing, within its confidence interval. Compile time is apart; memory is
told for ten times the rounds.
"""

import argparse
import os
import platform
import resource
import time
from importlib.metadata import version

os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(len(os.sched_getaffinity(0))))

import jax
import numpy as np
from numba import njit, prange

import epijax as ej
from epijax import learning

TRUTH = (0.7, 0.7)  # that agreeing, that honesty is approved


@njit(parallel=True, fastmath=True)
def numba_natural(evidence, gain, prior, truth, rounds, agreed):
    for i in prange(len(agreed)):
        np.random.seed(i)
        weights = prior.copy()
        for _ in range(rounds):
            largest = weights[0]
            for k in range(1, len(weights)):
                largest = max(largest, weights[k])
            ahead = weights[0] * 0
            for k in range(len(weights)):
                ahead += np.exp(weights[k] - largest) * gain[k]
            action = 0 if ahead >= 0 else 1
            happens = 2 * action + (1 if np.random.random() < truth[action] else 0)
            for k in range(len(weights)):
                weights[k] += evidence[happens, k]
            agreed[i] = action == 0


@njit(parallel=True, fastmath=True)
def numba_counts(evidence, gain, prior, truth, rounds, agreed):
    for i in prange(len(agreed)):
        np.random.seed(i)
        counts = np.zeros(4, prior.dtype)
        weights = np.empty_like(prior)
        for _ in range(rounds):
            largest = prior[0] - np.inf
            for k in range(len(weights)):
                weights[k] = prior[k]
                for j in range(4):
                    weights[k] += counts[j] * evidence[j, k]
                largest = max(largest, weights[k])
            ahead = weights[0] * 0
            for k in range(len(weights)):
                ahead += np.exp(weights[k] - largest) * gain[k]
            action = 0 if ahead >= 0 else 1
            counts[2 * action + (1 if np.random.random() < truth[action] else 0)] += 1
            agreed[i] = action == 0


def numpy_learners(evidence, gain, prior, truth, rounds, agreed):
    draw = np.random.default_rng(0)
    weights = np.repeat(prior[None], len(agreed), axis=0)
    for _ in range(rounds):
        beliefs = np.exp(weights - weights.max(axis=1, keepdims=True))
        action = np.where(beliefs @ gain >= 0, 0, 1)
        happens = 2 * action + (draw.random(len(agreed), prior.dtype) < truth[action])
        weights += evidence[happens]
    agreed[:] = action == 0


def compare(dtype, learners, rounds, num, repeats):
    """Seconds of each, by name; shares of learners who agree in the end; seconds of compiling."""
    with jax.enable_x64(dtype == "float64"):
        problem = ej.models.sycophancy(*TRUTH)
        log_prior = ej.priors.normal(problem.model, 0.47, 0.2, num)  # no ties to break
        theta = learning.parameter_grid(problem.model, num + 2)[1:-1]  # without the ends, whose logarithms are infinite
        tables = learning.tables_of(problem, num, theta)
        evidence = np.asarray(tables.evidence).reshape(4, num)
        gain = np.asarray(tables.utility[0] - tables.utility[1])
        arguments = evidence, gain, np.asarray(log_prior), np.array(TRUTH, dtype)
        key = jax.random.key(0)

        def simulated(count=learners, length=rounds):
            found = ej.simulate(problem, log_prior, key, length, count, parameters=theta, checkpoints=[length])
            return np.asarray(found.choice)[:, -1] == 0

        def rival(run):
            agreed = np.zeros(learners, bool)
            run(*arguments, rounds, agreed)
            return agreed

        jobs = {
            "epijax": simulated,
            "Numba natural": lambda: rival(numba_natural),
            "Numba counts": lambda: rival(numba_counts),
            "NumPy": lambda: rival(numpy_learners),
        }
        taken, shares, first = {name: [] for name in jobs}, {}, {}
        for turn in range(repeats + 1):  # in turns; the first compiles
            for name, job in jobs.items():
                if name == "NumPy" and turn > 2:
                    continue
                start = time.perf_counter()
                shares[name] = job().mean()
                seconds = time.perf_counter() - start
                if turn:
                    taken[name].append(seconds)
                else:
                    first[name] = seconds
        seconds = {name: float(np.median(each)) for name, each in taken.items()}
        compiling = {name: first[name] - seconds[name] for name in ("epijax", "Numba natural")}
        alone = scaling(simulated, repeats)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        simulated(length=10 * rounds)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return seconds, shares, compiling, alone / seconds["epijax"], grown


def scaling(simulated, repeats):
    """Seconds on one device."""
    every = jax.local_devices
    jax.local_devices = lambda **_: every()[:1]
    try:
        simulated()
        taken = []
        for _ in range(repeats):
            start = time.perf_counter()
            simulated()
            taken.append(time.perf_counter() - start)
    finally:
        jax.local_devices = every
    return float(np.median(taken))


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--learners", type=int, default=10240)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--parameters", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    devices = jax.local_devices()
    versions = ", ".join(f"{package} {version(package)}" for package in ("jax", "jaxlib", "numba", "numpy"))
    print(
        f"{os.cpu_count()} cores ({platform.machine()}), {len(devices)} x {devices[0].device_kind}; Python "
        f"{platform.python_version()}, {versions}. {asked.learners} learners, {asked.rounds} rounds, "
        f"{asked.parameters} parameters, two actions; median of {asked.repeats}.\n"
    )
    print(
        "| dtype | epijax Mrounds/s | / Numba natural | / Numba counts | / NumPy | 1 → n devices | compile s: epijax, "
        "Numba | share who agree: epijax, Numba, NumPy | more memory for 10 × the rounds |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for dtype in ("float32", "float64"):
        s, shares, compiling, devices_ratio, grown = compare(
            dtype, asked.learners, asked.rounds, asked.parameters, asked.repeats
        )
        rate = asked.learners * asked.rounds / s["epijax"] / 1e6
        ratios = " | ".join(f"{s[name] / s['epijax']:.1f}" for name in ("Numba natural", "Numba counts", "NumPy"))
        told = ", ".join(f"{shares[name]:.3f}" for name in ("epijax", "Numba natural", "NumPy"))
        print(
            f"| {dtype} | {rate:.1f} | {ratios} | {devices_ratio:.2f} | {compiling['epijax']:.1f}, "
            f"{compiling['Numba natural']:.1f} | {told} | {grown:.0f} MiB |",
            flush=True,
        )


if __name__ == "__main__":
    main()
