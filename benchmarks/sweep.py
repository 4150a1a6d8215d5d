"""Sweeps from axes to a store: cells/s end to end, beside what bounds them, in one run.

    python benchmarks/sweep.py [--size 8192] [--repeats 5]

The bounds are the bare kernel (tiles solved, nothing read) and raw Zarr writes of the same bytes (blocks solved before,
written with their markers); the rival is NumPy by hand in as many processes as there are devices, each writing its own
Zarr chunks. Compile time is apart; every store is compared with the first one.
"""

import argparse
import os
import platform
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(len(os.sched_getaffinity(0))))

import jax
import numpy as np
import zarr
from phase_map import engine_of, rivals_of, solve_all

import epijax as ej
from epijax.models import MODELS
from epijax.sweeps import store as on_disk
from epijax.sweeps.layout import VARIABLES, Layout

KEPT = {"all variables": VARIABLES, "phase alone": ("phase",)}
ROWS = 512  # of a NumPy process's chunk


def sweep_all(model, size, kept, store):
    shutil.rmtree(store, ignore_errors=True)
    axes = {name: np.linspace(*span, size) for name, span in MODELS[model].axes.items()}
    return ej.sweep(model, axes, store=store, variables=kept)


def write_all(blocks, source, store):
    """The blocks of a sweep written once more, into a store of the same layout."""
    shutil.rmtree(store, ignore_errors=True)
    made = on_disk.Store(source)
    attributes = dict(on_disk.open_run(source).attrs)
    kinds = {name: values.dtype for name, values in next(iter(blocks.values())).items()}
    on_disk.create(store, made.grid, made.config, attributes, kinds)
    run = on_disk.Store(store)
    for tile, block in blocks.items():
        run.write(tile, block, {"rechecked": 0, "seconds": 0.0})


def numpy_band(model, size, names, store, start):
    """A band of rows by NumPy by hand, unpacked and written by its own process."""
    rows, columns = (np.linspace(*span, size, dtype=np.float32) for span in MODELS[model].axes.values())
    words = np.empty((min(ROWS, size - start), size), np.uint32)
    rivals_of(model, "float32")["NumPy axis"](rows[start : start + ROWS], columns, words)
    layout = Layout(2, 1, names)
    block = layout.blank(words.shape)
    layout.unpack((words if "margin" in names else (words & 255).astype(np.uint8),), block)
    with zarr.config.set({"array.write_empty_chunks": True}):
        for name, values in block.items():
            zarr.open_array(str(store / name), mode="r+")[start : start + ROWS] = values


def numpy_all(pool, model, size, source, store):
    shutil.rmtree(store, ignore_errors=True)
    arrays = {name: zarr.open_array(str(source / name), mode="r") for name in on_disk.Store(source).config["variables"]}
    for name, array in arrays.items():
        codecs = array.metadata.codecs[1:]
        zarr.create_array(
            str(store / name), shape=array.shape, chunks=(ROWS, size), dtype=array.dtype, compressors=codecs
        )
    list(pool.map(partial(numpy_band, model, size, tuple(arrays), store), range(0, size, ROWS)))


def compare(model, size, label, repeats, folder, pool):
    kept = KEPT[label]
    source = folder / "first.zarr"
    engine = engine_of(model, size, "float32", kept)
    sweep_all(model, size, kept, source)
    blocks = {tile: block for tile, block, _ in engine.answers(engine.grid.tiles())}
    jobs = {
        "end to end": lambda: sweep_all(model, size, kept, folder / "again.zarr"),
        "kernel": lambda: solve_all(engine),
        "writes": lambda: write_all(blocks, source, folder / "written.zarr"),
        "NumPy": lambda: numpy_all(pool, model, size, source, folder / "numpy.zarr"),
    }
    one = engine_of(model, size, "float32", kept, jax.local_devices()[:1]) if jax.local_device_count() > 1 else None
    if one is not None:
        jobs["kernel on one device"] = lambda: solve_all(one)
    taken = {name: [] for name in jobs}
    for turn in range(repeats + 1):  # in turns; the first does not count
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            if turn:
                taken[name].append(time.perf_counter() - start)
    seconds = {name: float(np.median(each)) for name, each in taken.items()}
    compiling = engine.compile_seconds  # of the kernel, and of the float64 one where cells were undecided
    seconds["end to end"] -= compiling  # each sweep compiles anew
    right = on_disk.open_run(source)
    for name in ("again", "written", "numpy"):
        for variable in kept:
            values = np.asarray(zarr.open_array(str(folder / f"{name}.zarr" / variable), mode="r"))
            different = int((values.view(np.uint8) != right[variable].values.view(np.uint8)).sum())  # bit for bit
            if different and (name != "numpy" or variable != "margin"):
                print(f"{name}: {different} cells of {variable} differ", flush=True)
    return seconds, compiling


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=8192, help="points of an axis")
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    devices = jax.local_devices()
    versions = ", ".join(f"{package} {version(package)}" for package in ("jax", "jaxlib", "numpy", "zarr"))
    print(
        f"{os.cpu_count()} cores ({platform.machine()}), {len(devices)} x {devices[0].device_kind}; Python "
        f"{platform.python_version()}, {versions}. {asked.size} x {asked.size} cells, float32 with its recheck, median "
        f"of {asked.repeats}.\n"
    )
    columns = "Mcells/s", "/ slower bound", "kernel", "writes", "not computing", "1 → n devices", "/ NumPy", "compile s"
    print(f"| model, kept | {' | '.join(columns)} |")
    print("|---|---|---|---|---|---|---|---|---|")
    cells = asked.size**2 / 1e6
    with tempfile.TemporaryDirectory() as place, ProcessPoolExecutor(len(devices), get_context("spawn")) as pool:
        for model in ("sycophancy", "deception"):
            for label in KEPT:
                s, compiling = compare(model, asked.size, label, asked.repeats, Path(place), pool)
                bound = max(s["kernel"], s["writes"])
                scaling = s.get("kernel on one device", s["kernel"]) / s["kernel"]
                shares = [bound / s["end to end"], 1 - s["kernel"] / s["end to end"], s["NumPy"] / s["end to end"]]
                rates = [cells / s[name] for name in ("end to end", "kernel", "writes")]
                print(
                    f"| {model}, {label} | {rates[0]:.0f} | {shares[0]:.2f} | {rates[1]:.0f} | {rates[2]:.0f} "
                    f"| {shares[1]:.0%} | {scaling:.2f} | {shares[2]:.1f} | {compiling:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
