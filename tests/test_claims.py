import math

import pytest

from course_lib.claims import ClaimError, claim


def test_a_claim_that_holds_prints_its_bound_and_the_number_in_brackets(capsys):
    claim("test accuracy of the semi-supervised GAN", 0.951, at_least=0.93)
    assert capsys.readouterr().out == (
        "✓ test accuracy of the semi-supervised GAN is at least 0.93   [measured 0.951]\n"
    )


@pytest.mark.parametrize("bounds", [{"at_least": 3.0, "at_most": 8.0}, {"between": (3.0, 8.0)}])
def test_a_claim_may_be_bounded_on_both_sides(bounds, capsys):
    claim("gain", 4.5, **bounds)
    assert capsys.readouterr().out == "✓ gain is between 3 and 8   [measured 4.5]\n"


@pytest.mark.parametrize("measured", [0.92, 1.01, math.nan, math.inf, -math.inf])
def test_a_claim_outside_its_bounds_fails_and_names_the_number(measured, capsys):
    with pytest.raises(ClaimError, match=f"accuracy is between 0.93 and 1 .*{measured:.4g}"):
        claim("accuracy", measured, at_least=0.93, at_most=1.0)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("bound", [{"at_least": 0.5}, {"at_most": 0.5}])
def test_bounds_are_inclusive_and_not_a_number_meets_none(bound):
    claim("accuracy", 0.5, **bound)
    with pytest.raises(ClaimError):
        claim("accuracy", math.nan, **bound)


def test_a_claim_without_a_bound_is_no_claim():
    with pytest.raises(ClaimError, match="no bound"):
        claim("accuracy", 0.9)


@pytest.mark.parametrize(
    "bounds, message",
    [
        ({"between": (0, 1), "at_least": 0}, "bounds twice"),
        ({"between": (1, 0)}, "nothing lies between 1 and 0"),
        ({"at_least": math.nan, "at_most": 1}, "nothing lies between"),
    ],
)
def test_bounds_that_say_nothing_are_refused(bounds, message):
    with pytest.raises(ClaimError, match=message):
        claim("accuracy", 0.5, **bounds)


def test_a_claim_that_fails_tells_a_learner_what_to_do():
    with pytest.raises(
        ClaimError, match="If you changed something above, nothing is broken(.|\n)*If you changed nothing"
    ):
        claim("accuracy", 0.5, at_least=0.9)
