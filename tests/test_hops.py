"""Few functions lie between the optimizer and a product, wherever it is computed."""

import traceback
from pathlib import Path

import pytest
from ipyparallel.client.view import DirectView
from on_engines import MPI, NET

import hfnb
from hfnb import hessian_free
from hfnb.engines import worker

pytestmark = pytest.mark.usefixtures("own_ipython_dir")


def frames(folder=str(Path(hfnb.__file__).parent)):
    """The functions of hfnb that are running, as "folder/module.py:function", the outermost first."""
    running = traceback.extract_stack()
    return [f"{each.filename[len(folder) + 1 :]}:{each.name}" for each in running if folder in each.filename]


def between(stack, first, last):
    """What lies between the last call of one function and the first call in a module after it."""
    start = max(number for number, each in enumerate(stack) if each == first) + 1
    end = next(number for number, each in enumerate(stack) if number >= start and each.startswith(last))
    return stack[start:end]


def noting(note):
    """The identity as curvature, whose product notes the functions that lead to it."""

    def identity(net, w, X, Y):
        def product(v):
            note(frames())
            return len(X) * v

        return product

    return identity


def recorded(objective, w0, callback=None):
    """`hessian_free` with the stack of its first product in the result."""
    stacks = []
    result = hessian_free(objective, w0, curvature=noting(stacks.append), max_iter=1, callback=callback)
    result.stack = stacks[0]
    return result


@MPI
def test_an_engine_driven_product_takes_one_more_function(mpi_pair, data, w0):
    """Allreduce lies beside it."""
    stack = mpi_pair.minimize(NET, data, w0, recorded, progress=False).stack
    way = between(stack, "objectives/objective.py:product", "objectives/evaluator.py")
    assert way == ["engines/distributed_evaluators.py:product"]
    first = stack.index("optimizers/_hessian_free.py:hessian_free")
    last = stack.index("objectives/curvature.py:add_product")
    assert last - first + 1 <= 9, stack[first : last + 1]  # both ends counted


def test_a_client_driven_product_takes_few_more(pair, data, w0, tmp_path, monkeypatch):
    """From the objective to the message, and from the message to the evaluator on the engine."""
    sent, received, own = [], tmp_path / "stack", DirectView.apply_async

    def apply_async(view, function, *arguments):
        if arguments[0] is worker.multiply:
            sent.append(frames())
        return own(view, function, *arguments)

    monkeypatch.setattr(DirectView, "apply_async", apply_async)
    there = noting(lambda stack: received.write_text("\n".join(stack)))
    hessian_free(pair.objective(NET, data), w0, curvature=there, max_iter=1)
    to_message = sent[0][sent[0].index("objectives/objective.py:product") + 1 :]
    assert len(to_message) <= 4, to_message
    stack = received.read_text().splitlines()
    way = between(stack, "engines/worker.py:answer", "objectives/evaluator.py")
    assert way == ["engines/worker.py:multiply"]
