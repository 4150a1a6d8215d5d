"""Sweeps: `job` is the verb, `grid` the cells, `engine` the devices, `store` the disk, `provenance` the labels.

`separation` tells the engine what need not be computed for each cell, `layout` how an answer is packed. `jobfile` is a
sweep written down; `cluster` has one done by many processes; `refine` solves some cells for all; `basins` puts learners
into each; `outlines` are the boundaries as lines.
"""

from epijax.sweeps.basins import Learning as Learning
from epijax.sweeps.grid import scattered as scattered
from epijax.sweeps.job import check_parameters as check_parameters
from epijax.sweeps.job import nearest as nearest
from epijax.sweeps.job import phase_counts as phase_counts
from epijax.sweeps.job import sweep as sweep
from epijax.sweeps.layout import VARIABLES as VARIABLES
from epijax.sweeps.outlines import Boundary as Boundary
from epijax.sweeps.outlines import boundaries as boundaries
from epijax.sweeps.store import RunError as RunError
