"""Phase maps of the three models: epijax against NumPy and Numba by hand, and against the reference solver.

The claim: on the closed-form maps, the general solver on two CPU devices is at least as fast as a Numba kernel tuned by
hand for one model, on two cores, and at least twenty times as fast as NumPy in blocks; two devices are 1.7 times as
fast as one on a map of the size that `epijax phase-diagram` draws, and on a larger one as long as memory lets them; and
float32 with undecided cells solved again in float64 is float64 bit for bit, and no slower.

Everybody writes the same output. That is, with all variables kept, one 32-bit word a cell: a float32 margin whose
lowest 8 bits are phase, rationalizable set, pure equilibria and number of mixed ones; and without the margin these 8
bits alone. The rivals come in three forms. `loop`: theory §4 inside a loop over cells, which the compiler makes vector
code of. `cell`: tuned by hand, leads and checks are computed per axis beforehand, and the loop is left with
comparisons. `axis`: what somebody writes who knows that these maps separate, so that a cell is a minimum and an or of
two precomputed vectors; it runs at the speed of memory, and no solver of general problems can know that. How fast
memory is, `fill` tells: two cores that write one number into the same buffer. Numba writes into a buffer that is there
already and into a fresh one; the faster counts. All run in one process, in bursts and in turn; a time is the median of
the bursts' best.

    python benchmarks/phase_map.py            # about ten minutes on two cores
    python benchmarks/phase_map.py --quick
    python benchmarks/phase_map.py --devices  # one device against all, and no more
"""

import argparse
import os
import platform
import resource
import time
from functools import partial
from itertools import pairwise, product

import jax
import jaxlib
import numba
import numpy as np
from numba import njit, prange

from epijax.judging import reference_answer
from epijax.models import MODELS, X26
from epijax.phases import PHASES
from epijax.solution import TOLERANCE
from epijax.sweeps.engine import Engine
from epijax.sweeps.grid import make_grid
from epijax.sweeps.job import TILE_CELLS, TILE_SIDE
from epijax.sweeps.layout import VARIABLES

UNSAFE = (True, False)
HIGH = np.uint32(0xFFFFFF00)  # the bits of a word that hold the margin; the other 8 are the code
REFUTED, INVALID = np.uint32(0x7FC00006), np.uint32(0x7FC00007)  # margin NaN and a code without sets
BURST = 5
DRAWN = 2048  # points an axis that `epijax phase-diagram` takes unless told otherwise
SETS = ("phase", "rationalizable", "pure", "num_mixed")
KEPT = {"all": VARIABLES, "no margin": SETS}

# The rivals, from theory §4: what somebody writes who needs this one map. The lead is what the unsafe action earns more
# than the safe one, as a share of the largest payoff. All that depends on one axis is computed once for that axis; the
# functions of axes serve NumPy as they stand and Numba compiled.


def sycophancy_axes(p_agree, p_honest, given):
    """The lead at what agreeing teaches and at what honesty teaches, and the words of cells that have no answer."""
    reward_agree, reward_honest, cost_agree, cost_honest, lower, upper = given
    one = p_agree.dtype.type(1)
    scale = max(abs(cost_agree), abs(reward_agree - cost_agree), abs(cost_honest), abs(reward_honest - cost_honest))
    scale = scale if scale > 0 else one
    rise, level = (reward_agree + reward_honest) / scale, (reward_honest - cost_honest + cost_agree) / scale
    lead_agree = rise * np.minimum(np.maximum(p_agree, lower), upper) - level
    lead_honest = rise * np.minimum(np.maximum(one - p_honest, lower), upper) - level

    never, always = lower + upper <= 0, lower + upper >= 2  # a box of one certain belief, which data can refute
    rows, columns = np.zeros(p_agree.size, np.uint32), np.zeros(p_honest.size, np.uint32)
    rows[(never & (p_agree > 0)) | (always & (p_agree < 1))] = REFUTED
    columns[(always & (p_honest > 0)) | (never & (p_honest < 1))] = REFUTED
    box = (lower >= 0) & (lower <= upper) & (upper <= 1)
    rows[~(box & (p_agree >= 0) & (p_agree <= 1))] = INVALID
    columns[~((p_honest >= 0) & (p_honest <= 1))] = INVALID
    return lead_agree, lead_honest, rows, columns


def deception_axes(p_caught, upper, given):
    """The lead at the true risk, at the greatest and at the least believable one, and the words without answers.

    The lead falls with θ, so the lead at clip(p, lower, upper) is the greater of the first two.
    """
    gain, loss, safe, lower = given
    one = p_caught.dtype.type(1)
    scale = max(abs(gain), abs(loss), abs(safe))
    scale = scale if scale > 0 else one
    fall, level = (gain + loss) / scale, (gain - safe) / scale
    lead_true = level - fall * np.maximum(p_caught, lower)
    lead_upper, lead_lower = level - fall * upper, level - fall * lower

    rows, columns = np.zeros(p_caught.size, np.uint32), np.zeros(upper.size, np.uint32)
    rows[~((p_caught >= 0) & (p_caught <= 1))] = INVALID
    columns[~((lower >= 0) & (lower <= upper) & (upper <= 1))] = INVALID
    return lead_true, lead_upper, lead_lower, rows, columns


def overwrite(out, rows, columns):
    """Sets the words of all cells in rows and columns that have no answer; INVALID wins."""
    for i in np.flatnonzero(rows):
        out[i] = np.maximum(rows[i], columns)
    for j in np.flatnonzero(columns):
        out[:, j] = np.maximum(rows, columns[j])


def refute(out, p_caught, upper, lower):
    """Sets the words of deceivers who are certain of θ = 0 or θ = 1 and are taught otherwise."""
    for j in np.flatnonzero((lower + upper <= 0) | (lower + upper >= 2)):
        out[:, j] = np.where(p_caught != upper[j], REFUTED, out[:, j])


def state(lead, tol):
    """0 for behind, 1 for a tie, 2 for ahead."""
    return 1 + (lead > tol) - (lead < -tol)


def words(lead):
    """The margin's bits: floats that are not negative are ordered as their bits are."""
    return np.abs(lead).astype(np.float32).view(np.uint32) & HIGH


def code_of(unsafe_least, unsafe_most, safe_least, safe_most, tol):
    """The code of a cell, from the ends of the lead over what the unsafe and over what the safe action teaches."""
    unsafe_pure, safe_pure = unsafe_most >= -tol, safe_least <= tol
    unsafe_kept, safe_kept = unsafe_pure | (safe_most >= -tol), safe_pure | (unsafe_least <= tol)
    mixed = ((unsafe_least > tol) & (safe_most < -tol)) | ((unsafe_most < -tol) & (safe_least > tol))
    tied = min(min(abs(unsafe_least), abs(unsafe_most)), min(abs(safe_least), abs(safe_most))) <= tol
    phase = np.uint32(4) if unsafe_pure | safe_pure else np.uint32(3)
    phase = np.uint32(2) if unsafe_pure & safe_pure else phase
    phase = phase if safe_kept else np.uint32(1)
    phase = phase if unsafe_kept else np.uint32(0)
    phase = np.uint32(5) if tied else phase
    sets = np.uint32(unsafe_kept) << 3 | np.uint32(safe_kept) << 4 | np.uint32(unsafe_pure) << 5
    return np.uint32(phase | sets | np.uint32(safe_pure) << 6 | np.uint32(mixed) << 7)


def sycophancy_table():
    """`code_of` for each pair of states: of the lead where agreeing teaches, and where honesty does."""
    return np.array([[code_of(a, a, b, b, 0.5) for b in (-1, 0, 1)] for a in (-1, 0, 1)], np.uint32)


def deception_table(lead_lower, tol):
    """`code_of` for each pair of states: of the lead at the true risk, and at the greatest believable one."""
    low = state(lead_lower, tol) - 1
    return np.array([[code_of(max(a, b), max(a, b), b, low, 0.5) for b in (-1, 0, 1)] for a in (-1, 0, 1)], np.uint32)


# Numba: by axis (a row has one of three rows of codes; a cell is then a minimum and an or), and cell by cell


_sycophancy_axes, _deception_axes = njit(sycophancy_axes), njit(deception_axes)
_overwrite, _refute, _state, _words = njit(overwrite), njit(refute), njit(state), njit(words)
_code_of = njit(inline="always")(code_of)


@njit
def _codes(table, columns):
    codes = np.empty((3, columns.size), np.uint32)
    for i in range(3):
        for j in range(columns.size):
            codes[i, j] = table[i, columns[j]]
    return codes


@njit(parallel=True)
def fill(rows, columns, out):
    for i in prange(rows.size):
        for j in range(columns.size):
            out[i, j] = 1


@njit(parallel=True)
def sycophancy_by_axis(p_agree, p_honest, given, tol, table, out):
    agree, honest, bad_rows, bad_columns = _sycophancy_axes(p_agree, p_honest, given)
    row, row_state, column = _words(agree), _state(agree, tol), _words(honest)
    codes = _codes(table, _state(honest, tol))
    for i in prange(row.size):
        word, code = row[i], codes[row_state[i]]
        for j in range(column.size):
            out[i, j] = code[j] if out.itemsize == 1 else min(word, column[j]) | code[j]
    _overwrite(out, bad_rows, bad_columns)


@njit(parallel=True)
def sycophancy_by_loop(p_agree, p_honest, given, tol, table, out):
    reward_agree, reward_honest, cost_agree, cost_honest, lower, upper = given
    zero, one = p_agree.dtype.type(0), p_agree.dtype.type(1)
    scale = max(abs(cost_agree), abs(reward_agree - cost_agree), abs(cost_honest), abs(reward_honest - cost_honest))
    scale = scale if scale > 0 else one
    rise, level = (reward_agree + reward_honest) / scale, (reward_honest - cost_honest + cost_agree) / scale
    never, always = lower + upper <= 0, lower + upper >= 2
    box = (lower >= 0) & (lower <= upper) & (upper <= 1)
    for i in prange(p_agree.size):
        p = p_agree[i]
        a = rise * min(max(p, lower), upper) - level
        valid = box & (p >= zero) & (p <= one)
        refuted = (never & (p > zero)) | (always & (p < one))
        for j in range(p_honest.size):
            q = p_honest[j]
            b = rise * min(max(one - q, lower), upper) - level
            word = _code_of(a, a, b, b, tol)
            if out.itemsize > 1:
                word |= np.float32(min(abs(a), abs(b))).view(np.uint32) & HIGH
            word = REFUTED if refuted | (always & (q > zero)) | (never & (q < one)) else word
            out[i, j] = word if valid & (q >= zero) & (q <= one) else INVALID


@njit(parallel=True)
def sycophancy_by_cell(p_agree, p_honest, given, tol, table, out):
    agree, honest, bad_rows, bad_columns = _sycophancy_axes(p_agree, p_honest, given)
    for i in prange(agree.size):
        a = agree[i]
        for j in range(honest.size):
            b = honest[j]
            word = _code_of(a, a, b, b, tol)
            if out.itemsize > 1:
                word |= np.float32(min(abs(a), abs(b))).view(np.uint32) & HIGH
            out[i, j] = word
    _overwrite(out, bad_rows, bad_columns)


@njit(parallel=True)
def deception_by_axis(p_caught, upper, given, tol, table, out):
    true, greatest, least, bad_rows, bad_columns = _deception_axes(p_caught, upper, given)
    row, row_state = _words(true), _state(true, tol)
    column = np.minimum(_words(greatest), np.uint32(np.float32(abs(least)).view(np.uint32) & HIGH))
    codes = _codes(table, _state(greatest, tol))
    for i in prange(row.size):
        lead, word, code = true[i], row[i], codes[row_state[i]]
        for j in range(column.size):
            margin = np.uint32(0) if out.itemsize == 1 else min(word, column[j]) if lead > greatest[j] else column[j]
            out[i, j] = margin | code[j]
    _refute(out, p_caught, upper, given[3])
    _overwrite(out, bad_rows, bad_columns)


@njit(parallel=True)
def deception_by_loop(p_caught, upper, given, tol, table, out):
    gain, loss, safe, lower = given
    zero, one = p_caught.dtype.type(0), p_caught.dtype.type(1)
    scale = max(abs(gain), abs(loss), abs(safe))
    scale = scale if scale > 0 else one
    fall, level = (gain + loss) / scale, (gain - safe) / scale
    least = level - fall * lower
    for i in prange(p_caught.size):
        p = p_caught[i]
        for j in range(upper.size):
            high = upper[j]
            a, b = level - fall * min(max(p, lower), high), level - fall * high
            word = _code_of(a, a, b, least, tol)
            if out.itemsize > 1:
                word |= np.float32(min(min(abs(a), abs(b)), abs(least))).view(np.uint32) & HIGH
            middle = lower + high
            word = REFUTED if ((middle <= 0) & (p > zero)) | ((middle >= 2) & (p < one)) else word
            valid = (p >= zero) & (p <= one) & (lower >= zero) & (lower <= high) & (high <= one)
            out[i, j] = word if valid else INVALID


@njit(parallel=True)
def deception_by_cell(p_caught, upper, given, tol, table, out):
    true, greatest, least, bad_rows, bad_columns = _deception_axes(p_caught, upper, given)
    for i in prange(true.size):
        for j in range(greatest.size):
            b = greatest[j]
            a = max(true[i], b)
            word = _code_of(a, a, b, least, tol)
            if out.itemsize > 1:
                word |= np.float32(min(min(abs(a), abs(b)), abs(least))).view(np.uint32) & HIGH
            out[i, j] = word
    _refute(out, p_caught, upper, given[3])
    _overwrite(out, bad_rows, bad_columns)


# NumPy: the same two ways, in blocks of rows that stay in the cache


def runs(values, longest):
    """The slices of equal values, none longer than `longest`."""
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1), len(values)]
    for first, last in pairwise(edges):
        for start in range(first, last, longest):
            yield slice(start, min(start + longest, last))


def numpy_sycophancy_by_axis(p_agree, p_honest, given, tol, table, out, rows=64):
    agree, honest, bad_rows, bad_columns = sycophancy_axes(p_agree, p_honest, given)
    row, row_state, column = words(agree)[:, None], state(agree, tol), words(honest)
    codes = table[:, state(honest, tol)].astype(out.dtype)
    for block in runs(row_state, rows):
        if out.itemsize == 1:
            out[block] = codes[row_state[block.start]]
            continue
        out[block] = row[block]  # NumPy has no vector loop for a minimum with a broadcast column
        np.minimum(out[block], column, out=out[block])
        np.bitwise_or(out[block], codes[row_state[block.start]], out=out[block])
    overwrite(out, bad_rows, bad_columns)


def numpy_deception_by_axis(p_caught, upper, given, tol, table, out, rows=64):
    true, greatest, least, bad_rows, bad_columns = deception_axes(p_caught, upper, given)
    row_state = state(true, tol)
    margin = out.view(np.float32) if out.itemsize > 1 else out
    row, column = true.astype(np.float32)[:, None], greatest.astype(np.float32)
    nearest = np.minimum(np.abs(column), np.abs(np.float32(least)))
    codes = table[:, state(greatest, tol)].astype(out.dtype)
    for block in runs(row_state, rows):
        if out.itemsize == 1:
            out[block] = codes[row_state[block.start]]
            continue
        margin[block] = row[block]
        np.maximum(margin[block], column, out=margin[block])
        np.abs(margin[block], out=margin[block])
        np.minimum(margin[block], nearest, out=margin[block])
        np.bitwise_and(out[block], HIGH, out=out[block])
        np.bitwise_or(out[block], codes[row_state[block.start]], out=out[block])
    refute(out, p_caught, upper, given[3])
    overwrite(out, bad_rows, bad_columns)


def numpy_by_cell(out, unsafe, safe_least, safe_most, margin, tol):
    """The words of a block from leads that broadcast: bytes for the sets, arithmetic for the phase."""
    flag = np.uint8
    unsafe_pure, safe_pure = (unsafe >= -tol).view(flag), (safe_least <= tol).view(flag)
    unsafe_kept, safe_kept = unsafe_pure | (safe_most >= -tol), safe_pure | (unsafe <= tol)
    mixed = ((unsafe > tol) & (safe_most < -tol)) | ((unsafe < -tol) & (safe_least > tol))
    several = flag(3) + (unsafe_pure | safe_pure) - flag(2) * (unsafe_pure & safe_pure)  # phase 2, 3 or 4
    phase = unsafe_kept * (flag(1) + safe_kept * (several - flag(1)))
    phase += (margin <= tol) * (flag(5) - phase)
    code = phase | unsafe_kept << 3 | safe_kept << 4 | unsafe_pure << 5 | safe_pure << 6 | mixed.view(flag) << 7
    if out.itemsize == 1:
        out[:] = code
        return
    np.bitwise_and(margin.astype(np.float32).view(np.uint32), HIGH, out=out)
    np.bitwise_or(out, code, out=out)


def numpy_sycophancy_by_cell(p_agree, p_honest, given, tol, table, out, rows=16):
    agree, honest, bad_rows, bad_columns = sycophancy_axes(p_agree, p_honest, given)
    agree = agree[:, None]
    for start in range(0, len(agree), rows):
        a = agree[start : start + rows]
        numpy_by_cell(out[start : start + rows], a, honest, honest, np.minimum(np.abs(a), np.abs(honest)), tol)
    overwrite(out, bad_rows, bad_columns)


def numpy_deception_by_cell(p_caught, upper, given, tol, table, out, rows=16):
    true, greatest, least, bad_rows, bad_columns = deception_axes(p_caught, upper, given)
    true, nearest = true[:, None], np.minimum(np.abs(greatest), np.abs(least))
    for start in range(0, len(true), rows):
        a = np.maximum(true[start : start + rows], greatest)
        numpy_by_cell(out[start : start + rows], a, greatest, least, np.minimum(np.abs(a), nearest), tol)
    refute(out, p_caught, upper, given[3])
    overwrite(out, bad_rows, bad_columns)


# What is measured


def rivals_of(model, dtype):
    """For each rival a function from the axes of a tile and a buffer to nothing, the buffer filled."""
    kind = np.dtype(dtype).type
    tol = kind(TOLERANCE[dtype])
    if model == "deception":
        gain, loss, safe, lower = given = tuple(kind(v) for v in (1, 1, 0, 0))
        scale = max(abs(gain), abs(loss), abs(safe))
        table = deception_table((gain - safe) / scale - (gain + loss) / scale * lower, tol)
        forms = deception_by_loop, deception_by_cell, deception_by_axis
        forms += numpy_deception_by_cell, numpy_deception_by_axis
    else:
        given, table = tuple(kind(v) for v in (1, 1, 0, 0, 0, 1)), sycophancy_table()
        forms = sycophancy_by_loop, sycophancy_by_cell, sycophancy_by_axis
        forms += numpy_sycophancy_by_cell, numpy_sycophancy_by_axis
    names = "Numba loop", "Numba cell", "Numba axis", "NumPy cell", "NumPy axis"
    return {
        name: (lambda a, b, out, form=form: form(a, b, given, tol, table, out))
        for name, form in zip(names, forms, strict=True)
    }


def engine_of(model, size, dtype, kept=VARIABLES, devices=None, fixed=None):
    axes = {name: np.linspace(*span, size) for name, span in MODELS[model].axes.items()}
    return Engine(
        MODELS[model].build, fixed or {}, make_grid(axes, TILE_CELLS, TILE_SIDE), dtype, UNSAFE, devices, kept
    )


def solve_all(engine):
    """Every tile, the next one started before the last is waited for, as a sweep does."""
    flying = None
    for tile in engine.grid.tiles():
        started = engine.launch(tile)
        if flying is not None:
            engine.reuse(jax.block_until_ready(flying))
        flying = started
    engine.reuse(jax.block_until_ready(flying))


def collect_all(engine):
    """Every tile down to the variables of the dataset, undecided cells of float32 solved again in float64."""
    for _, block, _ in engine.answers(engine.grid.tiles()):
        engine.recycle(block)


def rival_all(rival, engine, buffer):
    """Every tile by a rival, into a buffer that is there or into a fresh one a tile."""
    word = engine.shapes[0][0].dtype
    for tile in engine.grid.tiles():
        part = engine.grid.region(tile)
        a, b = (v[p].astype(engine.dtype) for v, p in zip(engine.grid.axes.values(), part, strict=True))
        rival(a, b, np.empty((len(a), len(b)), word) if buffer is None else buffer[: len(a), : len(b)])


def timed(jobs, bursts):
    """The seconds of each job: of bursts, in which jobs take turns, the median of the best."""
    return {name: float(np.median(seconds)) for name, seconds in best_of_bursts(jobs, bursts).items()}


def ratios(slow, fast, bursts):
    """How many times as fast the second job is as the first, in each pair of neighbouring bursts: a shared machine has
    slow minutes, which a pair goes through together."""
    return np.divide(*best_of_bursts({"slow": slow, "fast": fast}, bursts).values())


def best_of_bursts(jobs, bursts):
    """For each job the seconds of the best run of each burst. The first two runs of a burst do not count: the threads
    of the job before spin on for a while, and would slow this one down."""
    taken = {name: [] for name in jobs}
    for _ in range(bursts):
        for name, job in jobs.items():
            each = []
            for _ in range(2 + BURST):
                start = time.perf_counter()
                job()
                each.append(time.perf_counter() - start)
            taken[name].append(min(each[2:]))
    return taken


def compare(model, size, dtype, kept, bursts, sample):
    """Times and agreement of everybody on one map."""
    engine = engine_of(model, size, dtype, kept)
    rivals = rivals_of(model, dtype)
    tile = next(engine.grid.tiles())
    part = engine.grid.region(tile)
    buffer = np.empty(engine.grid.tile, engine.shapes[0][0].dtype)
    start = time.perf_counter()
    words = np.asarray(engine.launch(tile)[0])[: part[0].stop, : part[1].stop]
    a, b = (v[p].astype(dtype) for v, p in zip(engine.grid.axes.values(), part, strict=True))
    compile_seconds, agreement = {"epijax": engine.compile_seconds}, {}
    for name, rival in rivals.items():
        start = time.perf_counter()
        rival(a, b, buffer[: len(a), : len(b)])
        if name.startswith("Numba"):
            compile_seconds[name] = time.perf_counter() - start
        theirs = buffer[: len(a), : len(b)]
        same = (words & 255) == (theirs & 255)
        if "margin" in kept:
            ours, other = ((w & HIGH).view(np.float32) for w in (words, theirs))
            same &= np.isclose(ours, other, rtol=2**-14, atol=4 * np.finfo(dtype).eps, equal_nan=True)
        agreement[name] = int(np.count_nonzero(~same))

    draw = np.random.default_rng(0).integers(0, engine.grid.tile, (sample, 2))
    axes, names = list(engine.grid.axes.values()), list(engine.grid.axes)
    start = time.perf_counter()
    with jax.enable_x64(True):
        problems = [
            MODELS[model].build(**dict(zip(names, map(float, (axes[0][i], axes[1][j])), strict=True))) for i, j in draw
        ]
    start = time.perf_counter()
    answers = [reference_answer(problem) for problem in problems]
    reference_rate = sample / (time.perf_counter() - start)
    _, block, _ = next(engine.answers([tile]))
    agreement["reference"] = sum(
        answer.phase != PHASES[int(block["phase"][i, j])]
        and "boundary" not in (answer.phase, PHASES[int(block["phase"][i, j])])
        for (i, j), answer in zip(draw, answers, strict=True)
    )

    jobs = {"epijax": lambda: solve_all(engine), "fill": lambda: rival_all(fill, engine, buffer)}
    for name, rival in rivals.items():
        if name.startswith("Numba"):
            jobs[name] = lambda rival=rival: rival_all(rival, engine, buffer)
            jobs[f"{name}, fresh"] = lambda rival=rival: rival_all(rival, engine, None)
    seconds = timed(jobs, bursts)
    seconds |= timed(
        {
            name: lambda rival=rival: rival_all(rival, engine, buffer)
            for name, rival in rivals.items()
            if name.startswith("NumPy")
        },
        max(1, bursts // 3),
    )
    return {
        "rates": {name: engine.grid.num_cells / s for name, s in seconds.items()} | {"reference": reference_rate},
        "compile": compile_seconds,
        "disagreements": agreement,
        "decided": float(np.mean(block["phase"] <= 4)),
        "temporaries": engine.memory().temp_size_in_bytes,
        "devices": len(engine.devices),
    }


def certified(model, size, bursts):
    """float32 with undecided cells solved again, against float64: seconds, cells solved again, cells that differ."""
    engines = {dtype: engine_of(model, size, dtype) for dtype in ("float32", "float64")}
    blocks = {dtype: [*engine.answers(engine.grid.tiles())] for dtype, engine in engines.items()}
    differ = sum(
        int(np.count_nonzero(one[name] != other[name]))
        for (_, one, _), (_, other, _) in zip(blocks["float32"], blocks["float64"], strict=True)
        for name in SETS
    )
    again = sum(record["rechecked"] for _, _, record in blocks["float32"])
    del blocks
    seconds = timed({dtype: lambda e=engine: collect_all(e) for dtype, engine in engines.items()}, bursts)
    return {**seconds, "again": again / size**2, "differ": differ}


def scaling(model, size, dtype, kept, fixed, bursts):
    """How many times as fast all devices are as one of them, by bursts."""
    alone = engine_of(model, size, dtype, kept, jax.local_devices()[:1], fixed)
    together = engine_of(model, size, dtype, kept, fixed=fixed)
    for engine in (alone, together):
        solve_all(engine)
    return ratios(lambda: solve_all(alone), lambda: solve_all(together), bursts)


def filling(size, dtype, bursts):
    """How many times as fast all cores fill memory as one of them, by bursts."""
    axis, out = np.zeros(size), np.zeros((size, size), dtype)

    def by(count):
        numba.set_num_threads(count)
        fill(axis, axis, out)

    cores = numba.get_num_threads()
    return ratios(lambda: by(1), lambda: by(cores), bursts)


def row(*entries):
    print("| " + " | ".join(map(str, entries)) + " |", flush=True)


def compare_devices(size, rounds, bursts=3):
    """One device against all, in rounds of a few bursts with engines made anew: neighbours on a shared machine come and
    go, and for a map that the cache holds it counts where in memory it lies."""
    sizes = sorted({DRAWN, size})
    jobs = {}
    for kept, dtype in product(KEPT, ("float32", "float64")):
        for model, fixed in (("sycophancy", {}), ("sycophancy", {"exploration": 0.1}), ("deception", {})):
            name = f"{model}, exploring" if fixed else model
            for n in sizes:
                jobs[name, dtype, kept, n] = partial(scaling, model, n, dtype, KEPT[kept], fixed, bursts)
    for n in sizes:
        jobs["fill", "one word", "all", n] = partial(filling, n, np.uint32, bursts)
        jobs["fill", "one byte", "no margin", n] = partial(filling, n, np.uint8, bursts)
    found = [{case: job() for case, job in jobs.items()} for _ in range(rounds)]
    cores = jax.local_device_count()
    row("map", "dtype", "kept", *(f"1 -> {cores} devices, {n}²" for n in sizes))
    row(*["---"] * (3 + len(sizes)))
    for case in dict.fromkeys(case[:3] for case in jobs):
        row(*case, *(f"{np.median([each[*case, n] for each in found]):.2f}" for n in sizes))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--bursts", type=int, default=9)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--devices", action="store_true", help="only one device against all")
    options = parser.parse_args()
    size, bursts = (2048, 3) if options.quick else (options.size, options.bursts)
    cores = len(os.sched_getaffinity(0))
    jax.config.update("jax_num_cpu_devices", cores)
    print(
        f"{cores} cores ({platform.machine()}), {cores} devices; Python {platform.python_version()}, "
        f"jax {jax.__version__}, jaxlib {jaxlib.__version__}, numba {numba.__version__}, numpy {np.__version__}; "
        f"{size} x {size} cells, median of {bursts} bursts' best of {BURST}\n"
    )
    if options.devices:
        compare_devices(size, bursts)
        return
    rivals = "Numba loop", "Numba cell", "Numba axis", "fill", "NumPy cell", "NumPy axis", "reference"
    row("map", "dtype", "kept", "epijax Mcells/s", *(f"/ {rival}" for rival in rivals), "decided", "cells that differ",
        "compile s: epijax, Numba", "XLA temporaries")  # fmt: skip
    row(*["---"] * 15)
    for kept, dtype, model in product(KEPT, ("float32", "float64"), X26):
        found = compare(model, size, dtype, KEPT[kept], bursts, 100 if options.quick else 1000)
        rates, compiled = found["rates"], found["compile"]
        times = [rates["epijax"] / max(rates[rival], rates.get(f"{rival}, fresh", 0)) for rival in rivals]
        row(
            model,
            dtype,
            kept,
            f"{rates['epijax'] / 1e6:,.0f}",
            *(f"{ratio:.2f}" if ratio < 1000 else f"{ratio:,.0f}" for ratio in times),
            f"{found['decided']:.2%}",
            sum(found["disagreements"].values()),
            f"{compiled['epijax']:.2f}, {compiled['Numba loop']:.1f}",
            f"{found['temporaries'] / 1024:,.0f} KiB",
        )
    print()
    compare_devices(size, bursts)
    print()
    row("map, solved down to the dataset's variables", "float32, then float64 where undecided", "float64", "ratio",
        "solved again", "values that differ")  # fmt: skip
    row(*["---"] * 6)
    for model, points in product(X26, (size, size + 1)):
        found = certified(model, points, bursts)
        row(
            f"{model} {points}²",
            f"{found['float32']:.3f} s",
            f"{found['float64']:.3f} s",
            f"{found['float32'] / found['float64']:.2f}",
            f"{found['again']:.3%}",
            found["differ"],
        )
    print(f"\npeak resident memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB")


if __name__ == "__main__":
    main()
