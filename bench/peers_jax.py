"""JAX's gradients and products: traced once, compiled, linearized once."""

import jax
import jax.numpy as jnp

from bench.peers import joined

ACTIVATIONS = {"tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid, "linear": lambda z: z}


def compiled(case):
    """jit(grad), jit(linearize(grad)), and jit of Jᵀ L J, each a linearization."""
    jax.config.update("jax_enable_x64", case.w.dtype == "float64")
    as_jax = [[(jnp.array(W), jnp.array(b)) for W, b in case.parts(vector)] for vector in (case.w, case.v)]
    (w, v), X, Y = as_jax, jnp.array(case.X), jnp.array(case.Y)

    def outputs(w):
        a = X
        for (W, b), name in zip(w, case.net.activations, strict=True):
            a = ACTIVATIONS[name](a @ W + b)
        return a

    def output_loss(z):
        if case.net.loss_name == "squared_error":
            return 0.5 * jnp.sum((z - Y) ** 2) / len(z)
        return jnp.mean(jax.nn.logsumexp(z, axis=1) - z[jnp.arange(len(z)), Y])

    def loss(w):
        return output_loss(outputs(w))

    if case.what == "gradient":
        function, at = jax.jit(jax.grad(loss)), w
    elif case.what == "hessian":
        function, at = jax.jit(jax.linearize(jax.grad(loss), w)[1]), v
    else:
        z, forward = jax.linearize(outputs, w)
        inner, back = jax.linearize(jax.grad(output_loss), z)[1], jax.linear_transpose(forward, w)
        function, at = jax.jit(lambda v: back(inner(forward(v)))[0]), v
    return lambda: jax.block_until_ready(function(at)), joined
