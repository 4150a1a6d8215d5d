"""epijax: Berk–Nash equilibria, rationalizable sets and phase diagrams of agents with wrong models."""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from epijax import models as models
    from epijax import priors as priors
    from epijax.boxes import best_fit as best_fit
    from epijax.engineering import Certificate as Certificate
    from epijax.engineering import Designed as Designed
    from epijax.engineering import Study as Study
    from epijax.engineering import certify as certify
    from epijax.engineering import compare_levers as compare_levers
    from epijax.engineering import design as design
    from epijax.engineering import trade_off as trade_off
    from epijax.environment import Environment as Environment
    from epijax.environment import GaussianEnvironment as GaussianEnvironment
    from epijax.evidence import beliefs as beliefs
    from epijax.evidence import components as components
    from epijax.evidence import verify as verify
    from epijax.evidence import witness as witness
    from epijax.files import read_problem as read_problem
    from epijax.files import read_tables as read_tables
    from epijax.learning import Limit as Limit
    from epijax.learning import basin as basin
    from epijax.learning import limits as limits
    from epijax.learning import posterior as posterior
    from epijax.learning import simulate as simulate
    from epijax.many_continuous import Bracket as Bracket
    from epijax.many_continuous import bracket as bracket
    from epijax.mean_field import Rest as Rest
    from epijax.mean_field import flow as flow
    from epijax.mean_field import rest_points as rest_points
    from epijax.phases import PHASES as PHASES
    from epijax.phases import phase as phase
    from epijax.problem import FiniteProblem as FiniteProblem
    from epijax.problem import Problem as Problem
    from epijax.projection import kl_divergence as kl_divergence
    from epijax.projection import project as project
    from epijax.safety import safety_margin as safety_margin
    from epijax.smooth import Branch as Branch
    from epijax.smooth import LogitEquilibria as LogitEquilibria
    from epijax.smooth import logit_equilibria as logit_equilibria
    from epijax.solution import Solution as Solution
    from epijax.solution import Status as Status
    from epijax.solver import solve as solve
    from epijax.subjective import AffineBernoulli as AffineBernoulli
    from epijax.subjective import Categorical as Categorical
    from epijax.subjective import Custom as Custom
    from epijax.subjective import Finite as Finite
    from epijax.subjective import GaussianLinear as GaussianLinear
    from epijax.sweeps import Boundary as Boundary
    from epijax.sweeps import Learning as Learning
    from epijax.sweeps import RunError as RunError
    from epijax.sweeps import boundaries as boundaries
    from epijax.sweeps import scattered as scattered
    from epijax.sweeps import sweep as sweep
    from epijax.tables import tabulate as tabulate

# The public list: name -> the module it lives in. Loaded on first use, so that `import epijax` does not import JAX.
# No module bears the name of a public function: importing it would hide the function.
_ROOMS = {
    "AffineBernoulli": "subjective",
    "Boundary": "sweeps",
    "Bracket": "many_continuous",
    "Categorical": "subjective",
    "Custom": "subjective",
    "Environment": "environment",
    "Finite": "subjective",
    "FiniteProblem": "problem",
    "GaussianEnvironment": "environment",
    "GaussianLinear": "subjective",
    "PHASES": "phases",
    "Problem": "problem",
    "RunError": "sweeps",
    "Solution": "solution",
    "Status": "solution",
    "beliefs": "evidence",
    "best_fit": "boxes",
    "boundaries": "sweeps",
    "bracket": "many_continuous",
    "components": "evidence",
    "verify": "evidence",
    "witness": "evidence",
    "Learning": "sweeps",
    "Limit": "learning",
    "Rest": "mean_field",
    "flow": "mean_field",
    "rest_points": "mean_field",
    "basin": "learning",
    "limits": "learning",
    "posterior": "learning",
    "priors": "",
    "simulate": "learning",
    "Certificate": "engineering",
    "Designed": "engineering",
    "Study": "engineering",
    "certify": "engineering",
    "compare_levers": "engineering",
    "design": "engineering",
    "safety_margin": "safety",
    "trade_off": "engineering",
    "Branch": "smooth",
    "LogitEquilibria": "smooth",
    "logit_equilibria": "smooth",
    "kl_divergence": "projection",
    "models": "",
    "phase": "phases",
    "project": "projection",
    "read_problem": "files",
    "read_tables": "files",
    "scattered": "sweeps",
    "solve": "solver",
    "sweep": "sweeps",
    "tabulate": "tables",
}

__all__ = sorted(_ROOMS)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str):
    if name not in _ROOMS:
        raise AttributeError(f"module 'epijax' has no attribute {name!r}")
    room = _ROOMS[name]
    value = getattr(import_module(f"epijax.{room}"), name) if room else import_module(f"epijax.{name}")
    globals()[name] = value
    return value


def __dir__():
    return [*__all__, "__version__"]
