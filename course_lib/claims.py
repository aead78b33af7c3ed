"""State a measured fact, print it, and fail when it is not so."""

import math


class ClaimError(AssertionError):
    """A claim that the text makes does not hold."""


# What a learner reads who has changed something, and meets a claim that the change has broken.
ADVICE = (
    "If you changed something above, nothing is broken: a claim is there to show what a change does to the result. "
    "Read what was measured, then go on with the next cell, or write bounds that fit your version. If you changed "
    "nothing, run all cells from the top; if it fails again, please report it, with the line above and your processor."
)


def claim(
    fact: str,
    measured: float,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    between: tuple[float, float] | None = None,
) -> None:
    """Print that `measured` lies within the bounds, or raise.

    Args:
        fact: what was measured, as the subject of a sentence: "test accuracy of the baseline". It names one claim of
            a notebook, so no other there has the same.
        measured: the number found, in the unit that `fact` names.
        at_least, at_most: a bound, inclusive.
        between: both bounds, inclusive.

    The line printed ends in `[measured …]`. Only that bracket may differ between machines; the rest is compared
    to the letter when the notebooks are checked, so a claim bounds the number that the prose talks about.

    Raises:
        ClaimError: a bound is missed, `measured` is not a number, or the bounds say nothing (there is none, or the
            lower one lies above the upper one).
    """
    if between is not None:
        if at_least is not None or at_most is not None:
            raise ClaimError(f"the claim about {fact} has its bounds twice: give between, or at_least and at_most")
        at_least, at_most = between
    if at_least is None and at_most is None:
        raise ClaimError(f"the claim about {fact} has no bound: give at_least, at_most or between")
    if at_least is not None and at_most is not None and not at_least <= at_most:
        raise ClaimError(f"the claim about {fact} cannot hold: nothing lies between {at_least:g} and {at_most:g}")
    measured = float(measured)
    if at_least is not None and at_most is not None:
        bounds = f"between {at_least:g} and {at_most:g}"
    else:
        bounds = f"at least {at_least:g}" if at_least is not None else f"at most {at_most:g}"
    statement = f"{fact} is {bounds}"
    too_small = at_least is not None and not measured >= at_least
    too_large = at_most is not None and not measured <= at_most
    if math.isnan(measured) or too_small or too_large:
        raise ClaimError(f"✗ not so: {statement}   [measured {measured:.4g}]\n{ADVICE}")
    print(f"✓ {statement}   [measured {measured:.4g}]")
