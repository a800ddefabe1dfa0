"""Answers of "Your turn" cells are printed beside the right ones, and never raise an error."""

import numpy as np
import pytest

from hfnb.studies.exercises import compare


@pytest.mark.parametrize(
    ("yours", "right"),
    [(0.1 + 0.2, 0.3), ([1, 2], np.array([1.0, 2.0])), (np.float32(0.1), np.float32(0.1)), (0.0, 0.0)],
)
def test_a_right_answer(capsys, yours, right):
    compare("x", yours, right)
    assert capsys.readouterr().out.startswith("x: right, ")


@pytest.mark.parametrize(
    ("yours", "told"),
    [
        (None, "Yours is None, the right one is [1 2]."),
        ([1.0, 2.1], "Yours is [1 2.1], the right one is [1 2]."),
        (1.0, "Yours is 1.0, the right one is [1 2]."),
        (np.ones((2, 2)), "Yours is an array of shape (2, 2), the right one is [1 2]."),
        ([1.0, np.nan], "Yours is [1.0, nan], the right one is [1 2]."),
        ("a text", "Yours is 'a text', the right one is [1 2]."),
        (lambda: 1, "Yours is <function"),
    ],
)
def test_a_wrong_answer_stands_beside_the_right_one(capsys, yours, told):
    compare("x", yours, [1.0, 2.0], hint="Look at the sign.")
    out = capsys.readouterr().out
    assert out.startswith("x: not yet. " + told)
    assert out.rstrip().endswith("Look at the sign.")


def test_how_far_an_answer_may_be_off(capsys):
    compare("x", [1.0, 1000.5], [1.0, 1000.0], rtol=1e-3)
    compare("x", [1.0, 1000.5], [1.0, 1000.0], rtol=1e-4)
    right, wrong = capsys.readouterr().out.splitlines()
    assert "right, [1 1000]" in right
    assert "not yet. Yours is [1 1000.5]" in wrong
    with pytest.raises(ValueError, match="rtol: expected a number > 0"):
        compare("x", 1.0, 1.0, rtol=0.0)
