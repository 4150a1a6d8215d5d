"""Berk–Nash rationalizability: the largest set of actions that justifies itself (theory §2, [EP25])."""

from collections.abc import Callable

from jaxtyping import Array, Bool


def eliminate(justified: Callable[[list], list], num_actions: int) -> list[list[Bool[Array, ""] | bool]]:
    """The rounds X ⊇ Γ(X) ⊇ Γ²(X) ⊇ … of elimination, the last one the rationalizable set.

    Γ shrinks a set or leaves it, and never empties one whose every belief fits something, so n actions need at most
    n − 1 rounds.

    **Arguments:** `justified(members)`: Γ, from membership of each action to membership of each action; `num_actions`.

    **Returns:** `num_actions` rounds, the first one all actions.
    """
    rounds: list[list[Bool[Array, ""] | bool]] = [[True] * num_actions]
    for _ in range(num_actions - 1):
        kept = justified(rounds[-1])
        rounds.append([was & is_ for was, is_ in zip(rounds[-1], kept, strict=True)])
    return rounds
