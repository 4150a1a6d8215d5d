"""What happens to a sweep when everything goes wrong: python scripts/faults.py [--kills 20]

Writers and Dask workers are killed at random moments (SIGKILL), a scheduler is killed, stored chunks are cut short,
changed and deleted, and a disk is full. After each, the same command has to end with exactly the cells of a sweep that
nothing happened to, and every fault has to be reported. Takes `pip install 'epijax[dask]' psutil`; Linux.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

import epijax as ej

EPIJAX = [sys.executable, "-c", "from epijax.cli import main; main()"]
DASK = [sys.executable, "-m", "dask"]
AXES = {"p_agree": np.linspace(0, 1, 1200), "p_honest": np.linspace(0, 1, 1100)}
JOB = [*EPIJAX, "sweep", "sycophancy", "--axis", "p_agree=0:1:1200", "--axis", "p_honest=0:1:1100", "--quiet"]
PARTS = 40  # so that there are some hundred tiles
PATIENCE = 300  # seconds that a run may take
IN_A_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]


class Fault(AssertionError):
    """Something was lost, wrong, or not reported."""


def demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Fault(otherwise)


def run(store: Path, *options: str, code: int = 0, told: str = "") -> str:
    """Runs the sweep, or what else is asked, to its end; with this exit code, and this among what it says."""
    command = [*JOB, "-o", str(store), *options] if not options or options[0].startswith("--") else [*EPIJAX, *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    says = ended.stdout + ended.stderr
    demand(ended.returncode == code, f"exit code {ended.returncode}, not {code}: {says}")
    demand(told in says and "Traceback" not in says, f"{told!r} is not said: {says}")
    return says


def begin(folder: Path, name: str) -> Path:
    """A store with one of its many parts done."""
    store = folder / f"{name}.zarr"
    run(store, "--part", f"1/{PARTS}")
    return store


def marks(store: Path) -> int:
    return len(list((store / ".done").glob("*.*.json")))


def wait_for_tiles(store: Path, more: int, process: subprocess.Popen) -> None:
    """Until so many more tiles are done, or the process has ended."""
    wanted, start = marks(store) + more, time.monotonic()
    while marks(store) < wanted and process.poll() is None:
        demand(time.monotonic() - start < PATIENCE, "no tile is done")
        time.sleep(0.005)


def same_as(store: Path, right: dict[str, np.ndarray]) -> None:
    """Finishes the sweep, and compares it byte for byte."""
    run(store)
    run(store, "status", str(store), "--verify", told=" 0 damaged")
    with ej.sweep("sycophancy", AXES, store=store) as dataset:
        for name, values in right.items():
            demand(dataset[name].values.tobytes() == values.tobytes(), f"{name} differs")


def kill_writers(store: Path, kills: int, draw: np.random.Generator) -> str:
    lost = 0
    for _ in range(kills):
        process = subprocess.Popen([*JOB, "-o", str(store)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for_tiles(store, int(draw.integers(1, 4)), process)
        time.sleep(draw.uniform(0, 0.03))
        lost += process.poll() is None
        process.kill()
        process.wait()
    return f"{lost} of {kills} writers killed at work, {marks(store)} tiles done by then"


def kill_workers(store: Path, kills: int, draw: np.random.Generator) -> str:
    process = subprocess.Popen(
        [*JOB, "-o", str(store), "--workers", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    killed = 0
    while killed < kills and process.poll() is None:
        wait_for_tiles(store, int(draw.integers(1, 4)), process)
        time.sleep(draw.uniform(0, 0.03))
        try:
            children = [child for child in psutil.Process(process.pid).children(recursive=True) if is_worker(child)]
            if children:
                children[int(draw.integers(len(children)))].send_signal(signal.SIGKILL)
                killed += 1
        except psutil.NoSuchProcess:  # it has ended meanwhile, of a kill or by itself
            continue
    said = process.communicate(timeout=PATIENCE)[1]
    demand(process.returncode == 0, f"exit code {process.returncode}: {said}")
    return f"{killed} of {kills} kills before all was done; the sweep ended by itself"


def is_worker(process: psutil.Process) -> bool:
    return "spawn_main" in " ".join(process.cmdline())


def kill_scheduler(store: Path, folder: Path) -> str:
    found = folder / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    options = ["--port", "0", "--no-dashboard", "--scheduler-file", str(found)]
    boss = subprocess.Popen([*DASK, "scheduler", *options], **quiet)
    hand = None
    try:
        while not found.exists():
            demand(boss.poll() is None, "the scheduler does not start")
            time.sleep(0.05)
        address = json.loads(found.read_text())["address"]
        hand = subprocess.Popen([*DASK, "worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"], **quiet)
        client = subprocess.Popen(
            [*JOB, "-o", str(store), "--scheduler", address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for_tiles(store, 2, client)
        boss.kill()
        said = client.communicate(timeout=PATIENCE)[1]
    finally:
        for process in (boss, hand):
            if process is not None:
                process.kill()
                process.wait()
    demand(client.returncode == 1 and "the Dask scheduler is gone" in said, f"exit code {client.returncode}: {said}")
    return "exit code 1: " + said.strip().splitlines()[-1]


def terminate(store: Path) -> str:
    process = subprocess.Popen([*JOB, "-o", str(store)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for_tiles(store, 2, process)
    process.terminate()
    said = process.communicate(timeout=PATIENCE)[1]
    demand(process.returncode == 1 and "stopped; what is finished is kept" in said, f"{process.returncode}: {said}")
    return "exit code 1: " + said.strip().splitlines()[-1]


def damage(store: Path, draw: np.random.Generator) -> str:
    run(store)
    short, changed, gone = (store / "phase/c/0/0", store / "margin/c/1/0", store / "pure/c/2/0")
    short.write_bytes(short.read_bytes()[: short.stat().st_size // 2])
    flipped = bytearray(changed.read_bytes())
    flipped[int(draw.integers(len(flipped)))] ^= 1 << int(draw.integers(8))
    changed.write_bytes(flipped)
    gone.unlink()
    said = run(store, "status", str(store), "--verify", code=1, told=" 3 damaged")
    for chunk in (short, changed, gone):
        demand(f"damaged: {chunk}" in said, f"{chunk} is not told: {said}")
    return (
        "a chunk cut short, one bit changed, a chunk deleted: each told by epijax status --verify, and computed again"
    )


def fill_the_disk(folder: Path) -> str:
    """On a file system of its own, which only this command and its children see."""
    disk = folder / "disk"
    disk.mkdir()
    job = " ".join(f"'{part}'" for part in [*JOB, "-o", str(disk / "run.zarr"), "--part", f"1/{PARTS}"])
    rest = " ".join(f"'{part}'" for part in [*JOB, "-o", str(disk / "run.zarr")])
    script = f"""mount -t tmpfs -o size=3m tmpfs '{disk}' || exit 99
        {job} || exit 98
        head -c 10m /dev/zero > '{disk}/ballast' 2>/dev/null
        {rest}; code=$?; find '{disk}' -name '*partial*' | sed 's/^/left over: /'
        rm '{disk}/ballast'; mount -o remount,size=64m '{disk}'
        {rest} || exit 97
        cp -r '{disk}/run.zarr' '{folder}/full.zarr'; exit $code"""
    ended = subprocess.run([*IN_A_NAMESPACE, script], capture_output=True, text=True, timeout=2 * PATIENCE, check=False)
    if ended.returncode == 99 or "unshare" in ended.stderr:
        return f"NOT TRIED: {ended.stderr.strip()}"
    demand(ended.returncode == 1, f"exit code {ended.returncode}: {ended.stdout}{ended.stderr}")
    demand("No space left on device); make room" in ended.stderr, ended.stderr)
    demand("left over" not in ended.stdout and "Traceback" not in ended.stderr, ended.stdout + ended.stderr)
    return "exit code 1: " + next(line for line in ended.stderr.splitlines() if "No space" in line)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="of writers, and as many of Dask workers")
    parser.add_argument("--seed", type=int, default=None, help="of the moments; drawn by default")
    asked = parser.parse_args()
    seed = int(np.random.SeedSequence().generate_state(1)[0]) if asked.seed is None else asked.seed
    draw = np.random.default_rng(seed)
    print(f"seed {seed}", flush=True)
    whole = ej.sweep("sycophancy", AXES)
    right = {name: whole[name].values for name in whole.data_vars}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        faults = {
            "writers killed": lambda store: kill_writers(store, asked.kills, draw),
            "workers killed": lambda store: kill_workers(store, asked.kills, draw),
            "scheduler killed": lambda store: kill_scheduler(store, folder),
            "terminated": terminate,
            "chunks damaged": lambda store: damage(store, draw),
        }
        for name, fault in faults.items():
            start, store = time.monotonic(), begin(folder, name.replace(" ", "-"))
            told = fault(store)
            same_as(store, right)
            print(f"{name}: {told}; every cell is right ({time.monotonic() - start:.0f} s)", flush=True)
        told = fill_the_disk(folder)
        if "NOT TRIED" not in told:
            same_as(folder / "full.zarr", right)
            told += "; every cell is right"
        print(f"disk full: {told}", flush=True)


if __name__ == "__main__":
    main()
