"""PyTorch's gradients and products, and those of curvlinops, which is built on it."""

import os

import numpy as np
import torch
from torch import nn
from torch.autograd import grad
from torch.nn import functional

from bench.peers import joined

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
ACTIVATIONS = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "linear": lambda z: z}


def network(case):
    """Return parameters and vector as tensors, and the functions outputs(parameters) and output_loss(z)."""
    X, Y = torch.from_numpy(case.X), torch.from_numpy(case.Y)
    w, v = ([torch.tensor(each) for pair in case.parts(x) for each in pair] for x in (case.w, case.v))

    def outputs(w):
        a = X
        for W, b, name in zip(w[::2], w[1::2], case.net.activations, strict=True):
            a = ACTIVATIONS[name](torch.addmm(b, a, W))
        return a

    def output_loss(z):
        if case.net.loss_name == "squared_error":
            return 0.5 * functional.mse_loss(z, Y, reduction="sum") / len(z)
        return functional.cross_entropy(z, Y)

    return [each.requires_grad_() for each in w], v, outputs, output_loss


def flat(tensors):
    return joined([[each.detach().numpy() for each in tensors]])


def double_backward(case):
    """Back-propagation through the gradient, whose graph is made once and kept."""
    w, v, outputs, output_loss = network(case)
    if case.what == "gradient":
        return lambda: grad(output_loss(outputs(w)), w), flat
    if case.what == "hessian":
        gradient = grad(output_loss(outputs(w)), w, create_graph=True)
        return lambda: grad(gradient, w, v, retain_graph=True), flat
    z = outputs(w)
    top = z.detach().requires_grad_()
    residual = grad(output_loss(top), top, create_graph=True)[0]
    u = torch.zeros_like(top, requires_grad=True)
    transposed = grad(z, w, u, create_graph=True)

    def call():
        Jv = grad(transposed, u, v, retain_graph=True)[0]
        LJv = grad(residual, top, Jv, retain_graph=True)[0]
        return grad(z, w, LJv, retain_graph=True)

    return call, flat


def func(case):
    """Forward over reverse mode by torch.func, which goes through the network anew each time."""
    if case.what == "gauss-newton":
        raise NotImplementedError("torch.func: no Gauss-Newton product of its own")
    w, v, outputs, output_loss = network(case)
    at, along = tuple(each.detach() for each in w), tuple(v)
    gradient = torch.func.grad(lambda w: output_loss(outputs(w)))
    if case.what == "gradient":
        return lambda: gradient(at), flat
    return lambda: torch.func.jvp(gradient, (at,), (along,))[1], flat


def curvlinops(case):
    """HessianLinearOperator and GGNLinearOperator on torch.nn modules."""
    from curvlinops import GGNLinearOperator, HessianLinearOperator

    if case.what == "gradient":
        raise NotImplementedError("curvlinops: PyTorch makes its gradients")
    kinds = {"tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "linear": nn.Identity}
    modules: list[nn.Module] = []
    for (W, b), name in zip(case.parts(case.w), case.net.activations, strict=True):
        linear = nn.Linear(*W.shape, dtype=torch.from_numpy(case.w).dtype)
        linear.weight.data, linear.bias.data = torch.tensor(W.T.copy()), torch.tensor(b)
        modules += [linear, kinds[name]()]
    model = nn.Sequential(*modules)
    squared = case.net.loss_name == "squared_error"
    scale = case.net.sizes[-1] / 2 if squared else 1.0  # nn.MSELoss is a mean over the outputs, too
    operator = (GGNLinearOperator if case.what == "gauss-newton" else HessianLinearOperator)(
        model,
        nn.MSELoss() if squared else nn.CrossEntropyLoss(),
        list(model.parameters()),
        [(torch.from_numpy(case.X), torch.from_numpy(case.Y))],
        check_deterministic=False,
    )
    v = torch.from_numpy(joined([(W.T, b) for W, b in case.parts(case.v)]))

    def in_our_order(product):
        vector, start, parts = product.detach().numpy() * scale, 0, []
        for m, n in zip(case.net.sizes, case.net.sizes[1:], strict=False):
            W, b = vector[start : start + m * n], vector[start + m * n : start + m * n + n]
            parts, start = [*parts, (W.reshape(n, m).T, b)], start + m * n + n
        return joined(parts).astype(np.float64)

    return lambda: operator @ v, in_our_order
