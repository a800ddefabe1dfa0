"""Whole optimizers on one loss, until it is at a target: ours, SciPy's, pytorch-minimize's and PyTorch's.

A baseline is a function (network, data, start, watch, options) that shows each loss over all images to the
watch, which ends it. PyTorch is imported where it is used: every run has a process of its own.
"""

import time
from functools import partial

import numpy as np
from scipy.optimize import minimize

from hfnb import Objective, hessian_free


class Over(Exception):
    """The target is reached, or the time is up."""


class Watch:
    """The clock of a run; ``reached`` are the seconds to the target, None where the limit came first."""

    def __init__(self, target: float, limit: float):
        self.target, self.limit, self.reached, self.least = target, limit, None, float("inf")
        self.start = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self.start

    def see(self, loss: float) -> None:
        """Note a loss over all images; end the run at the target or at the limit."""
        self.least = min(self.least, loss)
        if loss <= self.target:
            self.reached = self.seconds()
            raise Over
        self.check()

    def check(self) -> None:
        """End the run at the limit."""
        if self.seconds() > self.limit:
            raise Over


def ours(net, data, w0, watch, options):
    """`hessian_free`; ``curvature_batch_size`` k means one of k images here.

    The loss over all images is looked at with the clock stopped if the run has only that of a mini-batch.
    """
    objective = Objective(net, data)
    objective.value_and_gradient(w0)  # memory, threads: what is made once
    if "curvature_batch_size" in options:
        options = options | {"curvature_batch_size": len(data) // options["curvature_batch_size"]}
    watch.start = time.perf_counter()

    def see(record):
        loss = record.loss
        if record.batch_size < len(data):
            stopped = time.perf_counter()
            loss = objective.value(record.w)
            watch.start += time.perf_counter() - stopped
        watch.see(loss)

    hessian_free(objective, w0, max_iter=10**6, tol=0.0, callback=see, **options)


def scipy(method, net, data, w0, watch, options):
    """SciPy's optimizers on our objective, with the gradients and products that ours have."""
    objective = Objective(net, data)
    objective.value_and_gradient(w0)
    watch.start = time.perf_counter()

    def function(x):
        loss, gradient = objective.value_and_gradient(x.astype(np.float32))
        watch.see(loss)
        return loss, gradient.astype(float)

    def product(x, v):
        watch.check()
        return objective.hessp(x.astype(np.float32), v.astype(np.float32)).astype(float)

    second = {} if method == "L-BFGS-B" else {"hessp": product}
    options = {"maxiter": 10**6, **options}
    minimize(function, w0.astype(float), jac=True, method=method, options=options, **second)


def torch_loss(net, data):
    """Return the mean loss as a function (w, rows) of a flat tensor, and the number of rows."""
    import torch
    from torch.nn import functional

    X, Y = torch.from_numpy(np.ascontiguousarray(data.X)), torch.from_numpy(data.Y.astype(np.int64))

    def loss(w, rows=slice(None)):
        a = X[rows]
        for layer, name in zip(net.layers, net.activations, strict=True):
            W = w[layer.start : layer.middle].reshape(layer.m, layer.n)
            z = torch.addmm(w[layer.middle : layer.stop], a, W)
            a = z if name == "linear" else getattr(torch, name)(z)
        return functional.cross_entropy(a, Y[rows])

    return loss, len(X)


def torch_minimize(method, net, data, w0, watch, options):
    """pytorch-minimize, whose products are double back-propagation over all images."""
    import torch
    import torchmin

    loss, _ = torch_loss(net, data)
    w = torch.tensor(w0)
    loss(w)
    watch.start = time.perf_counter()

    def function(w):
        value = loss(w)
        watch.see(float(value.detach()))
        return value

    torchmin.minimize(function, w, method=method, max_iter=10**6, options=dict(options))


def torch_lbfgs(net, data, w0, watch, options):
    import torch

    loss, _ = torch_loss(net, data)
    w = torch.tensor(w0, requires_grad=True)
    loss(w).backward()
    settings = {"max_iter": 10**6, "tolerance_grad": 0.0, "tolerance_change": 0.0, **options}
    optimizer = torch.optim.LBFGS([w], line_search_fn="strong_wolfe", **settings)
    watch.start = time.perf_counter()

    def closure():
        optimizer.zero_grad()
        value = loss(w)
        value.backward()
        watch.see(float(value.detach()))
        return value

    optimizer.step(closure)


def torch_adam(net, data, w0, watch, options):
    """Mini-batches; the loss over all is looked at four times an epoch, with the clock stopped."""
    import torch

    loss, n = torch_loss(net, data)
    w = torch.tensor(w0, requires_grad=True)
    optimizer = torch.optim.Adam([w], lr=options["lr"])
    random, batch = torch.Generator().manual_seed(0), options["batch"]
    loss(w, slice(0, batch)).backward()
    watch.start = time.perf_counter()
    while True:
        order = torch.randperm(n, generator=random)
        for step, start in enumerate(range(0, n - batch + 1, batch)):
            optimizer.zero_grad()
            loss(w, order[start : start + batch]).backward()
            optimizer.step()
            if (step + 1) % max(n // batch // 4, 1) == 0:
                stopped = time.perf_counter()
                with torch.no_grad():
                    value = float(loss(w))
                watch.start += time.perf_counter() - stopped
                watch.see(value)


BASELINES = {
    "ours": ours,
    **{f"SciPy {method}": partial(scipy, method) for method in ("L-BFGS-B", "Newton-CG", "trust-krylov")},
    **{
        f"pytorch-minimize {method}": partial(torch_minimize, method)
        for method in ("newton-cg", "trust-krylov")
    },
    "torch L-BFGS": torch_lbfgs,
    "torch Adam": torch_adam,
}
