"""What every test shares: JAX with eight CPU devices and float64, types enforced, golden problems, random tables."""

import json
from collections.abc import Callable
from pathlib import Path

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_x64", True)

import jaxtyping  # noqa: E402

# The judge is plain NumPy and called by the ten thousand: imported before the hook, it goes unchecked.
import epijax.reference_families  # noqa: E402, F401

# From here on every shape and dtype in a signature of the library is checked at run time, in tests only.
jaxtyping.install_import_hook("epijax", "beartype.beartype")

import numpy as np  # noqa: E402
import pytest  # noqa: E402

HERE = Path(__file__).parent
GOLDEN = [HERE.parent.parent / "shared" / "golden" / "finite.json", HERE / "golden" / "finite.json"]


@pytest.fixture(scope="session")
def golden() -> list[dict]:
    """The golden problems: the whole collection where there is one next to the checkout, else the copy in `golden/`."""
    return json.loads(next(path for path in GOLDEN if path.exists()).read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def random_tables() -> Callable:
    return draw_tables


def draw_tables(seed: int, count: int, num: int, *, refuted: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Random two-action tables `[count, 2, num]`: normal payoffs, exponential divergences, some of them infinite.

    Ties have probability zero; `refuted` is the share of infinite divergences.
    """
    rng = np.random.default_rng([seed, num])
    utility = rng.normal(size=(count, 2, num))
    divergence = rng.exponential(size=(count, 2, num))
    divergence[rng.random(divergence.shape) < refuted] = np.inf
    return utility, divergence
