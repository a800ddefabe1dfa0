"""The rounding of another machine, imitated, to show that what lessons print does not depend on it.

`write_startup` makes an IPython start-up file, which the kernels and the engines of that profile run. From
then on modules of hfnb are changed as they are imported; nothing is imported earlier than the lesson imports
it. Perturbed are

- the parts of every total of losses, gradients or curvature products (`LocalEvaluator`), in one process
  and on engines;
- products of `hfnb.objectives.curvature`, with which lessons build operators of their own;
- values, gradients and products of `hfnb.problems`;
- the products that the Krylov solvers form with any operator or matrix (`hfnb.krylov.System`).

Each number is multiplied by 1 + ε z, ε = 1e-14 in float64 and 1e-6 in float32, z standard normal. As with
real rounding, the same computation gives the same numbers: z depends on the seed and on the numbers
themselves. So a run stays the same in one process and on engines, and two runs that differ in a last digit
part.
"""

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

SIZES = {"float64": 1e-14, "float32": 1e-6}
NORMALS = 2**17  # z is read from a list of so many numbers, from a place that depends on what is perturbed
SAMPLED = 512  # numbers of an array, about, that decide on this place

STARTUP = """
def _perturb():
    import importlib.util

    spec = importlib.util.spec_from_file_location("perturbation", {path!r})
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.install({seed!r})


_perturb()
del _perturb
"""


def write_startup(ipython_dir: Path, seed: int) -> None:
    """Write the start-up file into the default profile of an IPYTHONDIR."""
    folder = ipython_dir / "profile_default" / "startup"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "00-perturbation.py").write_text(STARTUP.format(path=__file__, seed=seed), encoding="utf-8")


def install(seed: int) -> None:
    """Perturb what this process will import of hfnb; RuntimeError if it has imported some of that already."""
    early = sorted(CHANGES.keys() & sys.modules.keys())
    if early:
        raise RuntimeError(f"perturbation: expected to be installed before {', '.join(early)}")
    sys.meta_path.insert(0, Finder(seed))


class Noise:
    """Multiplies numbers by 1 + ε z; makes functions and operators do so with what they return."""

    def __init__(self, seed: int):
        import numpy  # not at the start: a lesson that forgets to import it shall fail as it does elsewhere

        z = numpy.resize(numpy.random.default_rng(seed).standard_normal(NORMALS), 2 * NORMALS)
        self.np, self.factors = numpy, {name: (1 + size * z).astype(name) for name, size in SIZES.items()}

    def __call__(self, values, precision: str | None = None):
        """Return an array or a number perturbed; what is not floating point is returned as it is.

        ``precision``: the type that the numbers were computed in, where it is not theirs.
        """
        array = self.np.asarray(values)
        if array.dtype.name not in SIZES or not array.size:
            return values
        flat = array.ravel()
        sampled = self.np.ascontiguousarray(flat[:: max(1, flat.size // SAMPLED)])
        place = zlib.crc32(sampled.tobytes()) % NORMALS
        factors = self.factors[precision or array.dtype.name][place:][: flat.size]
        if factors.size < flat.size:
            factors = self.np.resize(factors, flat.size)
        found = (flat * factors).astype(array.dtype, copy=False).reshape(array.shape)
        return found if isinstance(values, self.np.ndarray) else type(values)(found)

    def result(self, function: Callable) -> Callable:
        """Return the function with its result, or each of its several results, perturbed."""

        @functools.wraps(function)
        def perturbed(*arguments, **options):
            found = function(*arguments, **options)
            return tuple(map(self, found)) if isinstance(found, tuple) else self(found)

        return perturbed

    def product(self, make: Callable) -> Callable:
        """Return a function that makes a product, v ↦ B v, with the results of this product perturbed."""

        @functools.wraps(make)
        def perturbed(*arguments, **options):
            return self.result(make(*arguments, **options))

        return perturbed

    def operator(self, make: Callable) -> Callable:
        """Return a function that makes a symmetric ``LinearOperator`` with its products perturbed."""
        from scipy.sparse.linalg import LinearOperator

        @functools.wraps(make)
        def perturbed(*arguments, **options):
            made = make(*arguments, **options)
            product = self.result(made.matvec)
            return LinearOperator(made.shape, matvec=product, rmatvec=product, dtype=made.dtype)

        return perturbed


def change_sums(module: ModuleType, noise: Noise) -> None:
    """Perturb what is added to float64 totals, so that it does not matter who adds it, and float32 totals."""
    original = module.LocalEvaluator._total
    signature = inspect.signature(original)

    @functools.wraps(original)
    def total(*arguments, **options):
        bound = signature.bind(*arguments, **options)
        precision = bound.arguments["w"].dtype.name
        if bound.arguments["dtype"] == noise.np.float32:
            return noise(original(*arguments, **options))

        def perturbed(term):
            def add(*rest):
                term(*rest)
                part = rest[-3]  # (..., total, workspace, first)
                part[:] = noise(part, precision)

            return add

        # A group's sum is perturbed once, after its last term: who adds the groups does not matter.
        shares = bound.arguments["shares"]
        bound.arguments["shares"] = [
            [[*group[:-1], perturbed(group[-1])] for group in each] for each in shares
        ]
        return original(*bound.args, **bound.kwargs)

    module.LocalEvaluator._total = total


def change_curvature(module: ModuleType, noise: Noise) -> None:
    """Perturb products with a Hessian or a Gauss–Newton matrix that autograd has recorded."""
    for name in ("hessian_product", "gauss_newton_product"):
        setattr(module, name, noise.product(getattr(module, name)))


def change_problems(module: ModuleType, noise: Noise) -> None:
    """Perturb the small problems with known answers."""
    problem = module.Problem
    problem.value, problem.curvature = noise.result(problem.value), noise.operator(problem.curvature)
    problem.value_and_gradient = noise.result(problem.value_and_gradient)


def change_krylov(module: ModuleType, noise: Noise) -> None:
    """Perturb the products of a solver's system, where dense matrices of lessons end up, too."""
    vars(module)["_square"] = noise.operator(vars(module)["_square"])


CHANGES: dict[str, Callable[[ModuleType, Noise], None]] = {
    "hfnb.objectives.evaluator": change_sums,
    "hfnb.objectives.curvature": change_curvature,
    "hfnb.problems.saddles": change_problems,
    "hfnb.krylov.system": change_krylov,
}


class Finder(importlib.abc.MetaPathFinder):
    """Finds the modules that are to be changed, and lets their own loader be followed by the change."""

    def __init__(self, seed: int):
        self.seed, self.noise = seed, functools.cache(lambda: Noise(seed))

    def find_spec(self, name, path, target=None):
        if name not in CHANGES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            spec.loader = Loader(spec.loader, lambda module: CHANGES[name](module, self.noise()))
        return spec


class Loader(importlib.abc.Loader):
    """A loader that changes the module after its own loader has executed it."""

    def __init__(self, own, change: Callable[[ModuleType], None]):
        self.own, self.change = own, change

    def create_module(self, spec):
        return self.own.create_module(spec)

    def exec_module(self, module):
        self.own.exec_module(module)
        self.change(module)

    def __getattr__(self, name):
        return getattr(self.own, name)  # what else tools read of a loader, such as the source
