"""Finite problems by the hundred thousand: epijax against QuantEcon, Gambit and Numba by hand.

The claim: all equilibria and the rationalizable set of two random tables, problems a second, many times those of the
solvers there are, which take one game at a time and know no rationalizable set; and on a grid of which one axis changes
payoffs alone, vertices found once for all payoffs.

Everybody finds all Nash equilibria of the game (U, −K); epijax and Numba the rationalizable set besides. QuantEcon's
support enumeration and Gambit's enumeration in floating point run in a Python loop, on one core as they are made. Numba
runs on all cores, with the walk along the envelope for two actions and, for more, theory §2 written as loops: each set
of parameters a vertex, each vertex its beliefs. epijax shards the batch over as many CPU devices as there are cores.
All run in one process, in turn, medians; payoffs are normal and divergences exponential, in float64.

    python benchmarks/finite.py            # some ten minutes on two cores, most of it compiling
    python benchmarks/finite.py --quick
"""

import argparse
import os
import platform
import time

import jax
import jaxlib
import numba
import numpy as np
import pygambit
import quantecon.game_theory as game_theory
from jax.sharding import Mesh, PartitionSpec
from numba import njit, prange

import epijax as ej

SIZES = {(2, 8): 200_000, (2, 64): 20_000, (3, 8): 20_000, (3, 32): 1_000, (4, 8): 4_000, (4, 16): 1_000}
MOST = 16  # equilibria that Numba lists


# Numba by hand


@njit(parallel=True)
def walk_all(utility, divergence, kept, count, mixed):
    for i in prange(len(utility)):
        kept[i], count[i] = walk(utility[i], divergence[i], mixed[i])


@njit
def walk(utility, divergence, mixed):
    """Two actions: along the lower envelope of the lines K(s, θ) from s = 0 to 1."""
    num = utility.shape[1]
    gain = utility[1] - utility[0]
    current, share, count, kept = np.argmin(divergence[0]), 0.0, 0, 0
    if gain[current] <= 0:
        count += 1
    while True:
        kept |= 2 if gain[current] >= 0 else 1
        slope = divergence[1, current] - divergence[0, current]
        nearest, following = 1.0, -1
        for k in range(num):
            fall = slope - (divergence[1, k] - divergence[0, k])
            if fall > 0:
                crossing = (divergence[0, k] - divergence[0, current]) / fall
                if crossing > share and crossing < nearest:
                    nearest, following = crossing, k
        if following < 0:
            break
        if gain[current] * gain[following] < 0:
            mixed[count, 0], mixed[count, 1] = 1 - nearest, nearest
            count += 1
        current, share = following, nearest
    if gain[current] >= 0:
        count += 1
    return kept, count


@njit
def solve_linear(matrix, level, n):
    """Gaussian elimination with pivots, in place; whether there is one solution, left in `level`."""
    for j in range(n):
        best = j
        for i in range(j + 1, n):
            if abs(matrix[i, j]) > abs(matrix[best, j]):
                best = i
        if abs(matrix[best, j]) < 1e-13:
            return False
        for k in range(n):
            matrix[j, k], matrix[best, k] = matrix[best, k], matrix[j, k]
        level[j], level[best] = level[best], level[j]
        for i in range(j + 1, n):
            factor = matrix[i, j] / matrix[j, j]
            for k in range(j, n):
                matrix[i, k] -= factor * matrix[j, k]
            level[i] -= factor * level[j]
    for j in range(n - 1, -1, -1):
        for k in range(j + 1, n):
            level[j] -= matrix[j, k] * level[k]
        level[j] /= matrix[j, j]
    return True


@njit
def following(chosen, size, num):
    """The next set of `size` out of `num`, in place; false after the last."""
    i = size - 1
    while i >= 0 and chosen[i] == num - size + i:
        i -= 1
    if i < 0:
        return False
    chosen[i] += 1
    for j in range(i + 1, size):
        chosen[j] = chosen[j - 1] + 1
    return True


@njit
def justified(utility, x, params, size):
    """Whether some belief on these parameters makes x a best response: at a corner of the beliefs that do."""
    num_actions = len(utility)
    matrix, level = np.empty((6, 6)), np.empty(6)
    part, rivals = np.empty(6, np.int64), np.empty(6, np.int64)
    for r in range(1, size + 1):
        for j in range(r):
            part[j] = j
        while True:
            for j in range(r - 1):
                rivals[j] = j
            while True:
                for j in range(r):
                    matrix[0, j] = 1.0
                    level[j] = 1.0 if j == 0 else 0.0
                    for i in range(r - 1):
                        y = rivals[i] + (rivals[i] >= x)
                        matrix[i + 1, j] = utility[x, params[part[j]]] - utility[y, params[part[j]]]
                if solve_linear(matrix, level, r):
                    fine = True
                    for j in range(r):
                        fine &= level[j] >= 0
                    for y in range(num_actions):
                        lead = 0.0
                        for j in range(r):
                            lead += level[j] * (utility[x, params[part[j]]] - utility[y, params[part[j]]])
                        fine &= lead >= -1e-12
                    if fine:
                        return True
                if r == 1 or not following(rivals, r - 1, num_actions - 1):
                    break
            if not following(part, r, size):
                break
    return False


@njit
def enumerate_one(utility, divergence, mixed, supports, bases):
    num_actions, num = utility.shape
    matrix, level, belief = np.empty((6, 6)), np.empty(6), np.empty(6)
    acts, chosen, full = np.empty(6, np.int64), np.empty(6, np.int64), (1 << num_actions) - 1
    vertices, count = 0, 0
    for support in range(1, full + 1):
        size = 0
        for x in range(num_actions):
            if support >> x & 1:
                acts[size] = x
                size += 1
        if size > num:
            continue
        for j in range(size):
            chosen[j] = j
        if size == 1:
            chosen[0] = np.argmin(divergence[acts[0]])
        while True:
            for j in range(size):
                for i in range(size):
                    matrix[j, i] = 1.0 if j == 0 else divergence[acts[i], chosen[j]] - divergence[acts[i], chosen[0]]
                level[j] = 1.0 if j == 0 else 0.0
            exists = solve_linear(matrix, level, size)
            for i in range(size):
                exists = exists and level[i] > 0
            if exists:
                own = 0.0
                for i in range(size):
                    own += level[i] * divergence[acts[i], chosen[0]]
                for k in range(num):
                    value = 0.0
                    for i in range(size):
                        value += level[i] * divergence[acts[i], k]
                    if value < own - 1e-12:
                        exists = False
                        break
            if exists:
                supports[vertices] = support
                for j in range(size):
                    bases[vertices, j] = chosen[j]
                vertices += 1
                for i in range(size):
                    for j in range(size):
                        matrix[i, j] = 1.0 if i == 0 else utility[acts[i], chosen[j]] - utility[acts[0], chosen[j]]
                    belief[i] = 1.0 if i == 0 else 0.0
                holds = solve_linear(matrix, belief, size)
                for j in range(size):
                    holds = holds and belief[j] >= 0
                for y in range(num_actions):
                    if holds:
                        ahead = 0.0
                        for j in range(size):
                            ahead += belief[j] * (utility[y, chosen[j]] - utility[acts[0], chosen[j]])
                        holds = ahead <= 1e-12
                if holds:
                    for i in range(size):
                        mixed[count, acts[i]] = level[i]
                    count += 1
            if size == 1 or not following(chosen, size, num):
                break
    kept = full
    while True:
        image = 0
        for v in range(vertices):
            if not supports[v] & ~kept:
                size = 0
                for x in range(num_actions):
                    size += supports[v] >> x & 1
                for x in range(num_actions):
                    if kept >> x & 1 and not image >> x & 1 and justified(utility, x, bases[v], size):
                        image |= 1 << x
        if image == kept:
            return kept, count
        kept = image


@njit(parallel=True)
def enumerate_all(utility, divergence, kept, count, mixed):
    for i in prange(len(utility)):
        room = 64 * utility.shape[1]
        supports, bases = np.empty(room, np.int64), np.empty((room, 6), np.int64)
        kept[i], count[i] = enumerate_one(utility[i], divergence[i], mixed[i], supports, bases)


def by_numba(utility, divergence):
    kept, count = np.empty(len(utility), np.int64), np.empty(len(utility), np.int64)
    mixed = np.zeros((len(utility), MOST, utility.shape[1]))
    (walk_all if utility.shape[1] == 2 else enumerate_all)(utility, divergence, kept, count, mixed)
    return kept, count


# One game at a time


def by_quantecon(utility, divergence):
    players = (game_theory.Player(utility), game_theory.Player(np.ascontiguousarray(-divergence.T)))
    return len(game_theory.support_enumeration(game_theory.NormalFormGame(players)))


def by_gambit(utility, divergence):
    game = pygambit.StrategicGame.from_arrays(utility, -divergence)
    return len(pygambit.nash.enummixed_solve(game, rational=False).equilibria)


# epijax


def answers(utility, divergence):
    solution = ej.solve(ej.FiniteProblem(utility, divergence))
    mixed = solution.mixed[: min(MOST, solution.mixed.shape[0])]
    count = solution.num_mixed + jax.lax.population_count(solution.pure_bits).astype(int)
    return solution.rationalizable_bits, solution.pure_bits, count, mixed, solution.status


def compiled(shape, dtype):
    """The batch over all devices, and the seconds it took to compile."""
    mesh = Mesh(np.array(jax.devices()), ("cells",))
    spec = PartitionSpec("cells")
    sharded = jax.shard_map(jax.vmap(answers), mesh=mesh, in_specs=(spec, spec), out_specs=spec, check_vma=False)
    start = time.perf_counter()
    program = jax.jit(sharded).lower(*[jax.ShapeDtypeStruct(shape, dtype)] * 2).compile()
    return program, time.perf_counter() - start


def timed(function, repeats):
    result, times = function(), []
    for _ in range(repeats):
        start = time.perf_counter()
        result = jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    return result, float(np.median(times))


def draw(count, num_actions, num, seed=0):
    rng = np.random.default_rng([seed, num_actions, num])
    return rng.normal(size=(count, num_actions, num)), rng.exponential(size=(count, num_actions, num))


def compare(size, count, repeats):
    num_actions, num = size
    utility, divergence = draw(count, num_actions, num)
    rates, share, differ, seconds = {}, {}, {}, {}
    (kept, counted), took = timed(lambda: by_numba(utility, divergence), repeats)
    rates["Numba"] = count / took
    with jax.enable_x64(True):
        for dtype in ("float64", "float32"):
            tables = [jax.numpy.asarray(table.astype(dtype)) for table in (utility, divergence)]
            with jax.enable_x64(dtype == "float64"):
                program, seconds[dtype] = compiled(utility.shape, dtype)
                found, took = timed(lambda program=program, tables=tables: program(*tables), repeats)
            rates[dtype] = count / took
            solved = np.asarray(found[4]) == ej.Status.SOLVED
            share[dtype] = solved.mean()
            differ[dtype] = int(((np.asarray(found[0]) != kept) | (np.asarray(found[2]) != counted))[solved].sum())
    few = max(3, min(200, int(200 * 64 / num**2)))
    for name, rival in (("QuantEcon", by_quantecon), ("Gambit", by_gambit)):
        games = list(zip(utility[:few], divergence[:few], strict=True))
        rival(*games[0])
        start = time.perf_counter()
        theirs = [rival(*game) for game in games]
        rates[name] = few / (time.perf_counter() - start)
        differ[name] = int((np.array(theirs) != counted[:few]).sum())
    ratios = [rates["float64"] / rates[rival] for rival in ("QuantEcon", "Gambit", "Numba")]
    ratios += [rates["float32"] / rates[rival] for rival in ("QuantEcon", "Numba")]
    cells = [f"{num_actions} × {num}", f"{rates['float64']:,.0f}", *(f"{r:,.2f}" for r in ratios)]
    cells += [f"{share['float64']:.2%}, {share['float32']:.2%}"]
    cells += [", ".join(str(differ[name]) for name in ("float64", "float32", "QuantEcon", "Gambit"))]
    print("| " + " | ".join([*cells, f"{seconds['float64']:.0f}, {seconds['float32']:.0f}"]) + " |", flush=True)


def compare_grid(size, divergences, payoffs, repeats):
    """Each divergence with each payoff: as a grid of two axes, and the same problems one after the other."""
    utility, divergence = draw(payoffs, *size)[0], draw(divergences, *size)[1]
    with jax.enable_x64(True):
        grid = jax.jit(jax.vmap(jax.vmap(answers, (0, None)), (None, 0)))
        flat = jax.jit(jax.vmap(answers))
        pairs = np.tile(utility, (divergences, 1, 1)), np.repeat(divergence, payoffs, axis=0)
        one, took_grid = timed(lambda: grid(utility, divergence), repeats)
        other, took_flat = timed(lambda: flat(*pairs), repeats)
    same = all(np.array_equal(a.reshape(b.shape), b, equal_nan=True) for a, b in zip(one[:3], other[:3], strict=True))
    print(
        f"{size[0]} × {size[1]}, {divergences} divergences × {payoffs} payoffs, one device: "
        f"{divergences * payoffs / took_grid:,.0f} problems/s, {took_flat / took_grid:.1f} times the same one by one; "
        f"answers {'equal' if same else 'DIFFER'}"
    )


def main():
    parser = argparse.ArgumentParser(description="Random finite problems: epijax against others; see the docstring.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the problems, three repeats")
    quick = parser.parse_args().quick
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    jax.config.update("jax_num_cpu_devices", cores)
    numba.set_num_threads(cores)
    print(
        f"{cores} cores ({platform.machine()}), {len(jax.devices())} devices; Python {platform.python_version()}, "
        f"jax {jax.__version__}, jaxlib {jaxlib.__version__}, numba {numba.__version__}, pygambit "
        f"{pygambit.__version__}, quantecon {__import__('quantecon').__version__}\n"
    )
    print(
        "| actions × parameters | epijax float64, problems/s | / QuantEcon | / Gambit | / Numba | float32 / QuantEcon "
        "| float32 / Numba | decided: float64, float32 | differ from Numba: float64, float32, QuantEcon, Gambit "
        "| compile s: float64, float32 |"
    )
    print("|" + "---|" * 10)
    for size, count in SIZES.items():
        compare(size, max(64, count // 10) if quick else count, 3 if quick else 7)
    print()
    for size in ((2, 16), (4, 16)):
        compare_grid(size, 16, 64 if quick else 512, 3)


if __name__ == "__main__":
    main()
