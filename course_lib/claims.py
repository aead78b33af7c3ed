"""State a measured fact, print it, and fail when it is not so."""

import math


class ClaimError(AssertionError):
    """A claim that the text makes does not hold."""


def claim(fact: str, measured: float, *, at_least: float | None = None, at_most: float | None = None) -> None:
    """Print that `measured` lies within the bounds, or raise.

    Args:
        fact: what was measured, as the subject of a sentence: "test accuracy of the baseline".
        measured: the number found, in the unit that `fact` names.
        at_least, at_most: the bounds, both inclusive; at least one of them.

    The line printed ends in `[measured …]`. Only that bracket may differ between machines; the rest is compared
    to the letter when the notebooks are checked, so a claim bounds the number that the prose talks about.

    Raises:
        ClaimError: the bound is missed, `measured` is not a number, or no bound is given.
    """
    if at_least is None and at_most is None:
        raise ClaimError(f"the claim about {fact} has no bound: give at_least, at_most or both")
    measured = float(measured)
    bounds = [f"at least {at_least:g}"] if at_least is not None else []
    bounds += [f"at most {at_most:g}"] if at_most is not None else []
    statement = f"{fact} is {' and '.join(bounds)}"
    too_small = at_least is not None and not measured >= at_least
    too_large = at_most is not None and not measured <= at_most
    if math.isnan(measured) or too_small or too_large:
        raise ClaimError(f"✗ not so: {statement}   [measured {measured:.4g}]")
    print(f"✓ {statement}   [measured {measured:.4g}]")
