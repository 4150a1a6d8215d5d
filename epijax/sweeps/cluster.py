"""Tiles solved by Dask's workers: each writes its own, and only the markers on disk say what is done."""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock
from typing import Any

from epijax.sweeps.basins import Basins
from epijax.sweeps.engine import Engine
from epijax.sweeps.grid import Tile
from epijax.sweeps.refine import Refiner
from epijax.sweeps.store import RunError, Store

_LOOKED_EVERY = 0.1  # seconds
_COUNTED_EVERY = 2.0
_SILENCE = 10.0  # seconds without a scheduler until it counts as gone
_ALONE = 60.0  # seconds without a worker until there will be none
_GO_ON = "what is finished is kept, and the same command does the rest"
_one_at_a_time = Lock()  # an engine is for one thread


@contextmanager
def client(workers: int | None, scheduler: str | None) -> Iterator[Any]:
    """A Dask client with `workers` processes of its own on this machine, or that of the `scheduler` at this address.

    Raises `ValueError` without Dask, and `RunError` where nobody answers at the address.
    """
    try:
        import dask.config
        import distributed
    except ImportError as error:
        raise ValueError("workers need Dask; install it by pip install 'epijax[dask]'") from error
    local = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
    options: dict[str, Any] = {} if scheduler else local | {"env": {"JAX_NUM_CPU_DEVICES": "1"}}
    # a worker that is killed, for want of memory say, is started again soon; its tile is not to blame at once
    patience = {"distributed.scheduler.allowed-failures": 100, "distributed.deploy.lost-worker-timeout": "5s"}
    with dask.config.set(patience):
        try:
            made = distributed.Client(scheduler, timeout=_SILENCE, set_as_default=False, **options)
        except (OSError, ValueError) as error:
            raise RunError(f"no Dask scheduler answers at {scheduler}; start one by `dask scheduler`") from error
        with made:
            yield made


def solve(
    client: Any,
    run: Store,
    engine_of: Callable[..., Engine | Refiner | Basins],
    tiles: list[Tile],
    progress: Callable[[int, int], None] | None,
) -> None:
    """Has these tiles solved and written by the client's workers; `engine_of` makes of a grid what solves its tiles.

    Raises `RunError` where the scheduler is gone, a tile fails, or tiles have no marker in the end.
    """
    import cloudpickle

    work, name = cloudpickle.dumps((run.path, engine_of)), f"epijax-{uuid.uuid4().hex}"
    flying = {client.submit(solve_tile, work, tile, key=(name, *tile), pure=False, retries=3): tile for tile in tiles}
    try:
        _wait(client, flying, run, progress)
    finally:
        if client.status == "running":
            client.cancel(list(flying))
    missing = sum(run.mark(tile) is None for tile in tiles)
    if missing:
        raise RunError(f"{missing} of {len(tiles)} tiles were not written; {_GO_ON}")


def solve_tile(work: bytes, tile: Tile) -> None:
    """Solves a tile and writes it, on a worker, unless it is done."""
    with _one_at_a_time:
        run, engine = _opened(work)
        if run.mark(tile) is None:
            start = time.perf_counter()
            for _, block, record in engine.answers([tile]):
                run.write(tile, block, record | {"seconds": round(time.perf_counter() - start, 6)})


@lru_cache(maxsize=1)
def _opened(work: bytes) -> tuple[Store, Engine | Refiner | Basins]:
    import cloudpickle

    path, engine_of = cloudpickle.loads(work)
    if not path.exists():
        raise RunError(f"{path} is not there for this worker; put the store where all workers can reach it")
    run = Store(path)
    return run, engine_of(grid=run.grid)


def _wait(client: Any, flying: dict, run: Store, progress: Callable[[int, int], None] | None) -> None:
    """Until none is left; raises where one failed, or nobody answers."""
    total = run.grid.num_cells
    done = total - sum(run.grid.cells_of(tile) for tile in run.pending())
    heard = worked = counted = time.monotonic()
    while flying:
        time.sleep(_LOOKED_EVERY)
        if client.status == "running":
            heard = time.monotonic()
            if heard >= counted + _COUNTED_EVERY:
                counted = heard
                worked = heard if _has_workers(client) else worked
                if client.cluster is not None:  # a worker killed while it started is not started again by itself
                    client.cluster.scale(len(client.cluster.worker_spec))
        gone = any(future.status == "cancelled" for future in flying)  # "lost" with its worker is solved by another
        if gone or time.monotonic() - heard > _SILENCE:
            raise RunError(f"the Dask scheduler is gone; {_GO_ON}")
        if time.monotonic() - worked > _ALONE:
            raise RunError(f"Dask has had no worker for {_ALONE:.0f} s; start some by `dask worker`; {_GO_ON}")
        for future in [future for future in flying if future.status in ("finished", "error")]:
            if future.status == "error":
                error = future.exception()
                raise RunError(f"tile {flying[future]} failed ({type(error).__name__}: {error}); {_GO_ON}")
            done += run.grid.cells_of(flying.pop(future))
            if progress is not None:
                progress(done, total)


def _has_workers(client: Any) -> bool:
    try:
        return bool(client.scheduler_info()["workers"])
    except OSError:  # no scheduler to ask: that is noticed elsewhere
        return False
