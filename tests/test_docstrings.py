"""Public names have numpydoc docstrings, which say what goes in and what comes out, and full annotations."""

import inspect
import typing
from collections.abc import Iterator
from enum import Enum
from importlib import import_module

import pytest
from numpydoc.docscrape import ClassDoc
from numpydoc.validate import validate

import hfnb

# Packages and modules whose public names are checked: those in __all__ or, without one, all functions that do
# not begin with an underscore. A name in hfnb.__all__ is checked if it is defined in one of these.
CHECKED = [
    "hfnb.checks",
    "hfnb.datasets",
    "hfnb.engines",
    "hfnb.krylov",
    "hfnb.models",
    "hfnb.objectives",
    "hfnb.optimizers",
    "hfnb.plots",
    "hfnb.problems",
    "hfnb.threads",
]

# What numpydoc would ask for and these tests do not: an extended summary, See Also and Examples everywhere,
# a capital at the beginning of a description that begins with a symbol, a verb as the first word, and
# (numpydoc 1.8 only) a line break between the quotes and the summary.
NOT_ASKED = {"ES01", "SA01", "EX01", "PR08", "RT04", "SS05", "GL01"}


def public(module):
    """The names of a module's public functions and classes."""
    found = getattr(module, "__all__", None)
    if found is None:
        items = vars(module).items()
        own = [name for name, each in items if getattr(each, "__module__", "") == module.__name__]
        found = [name for name in own if inspect.isroutine(vars(module)[name]) and not name.startswith("_")]
    objects = {name: getattr(module, name) for name in found}  # some are imported when they are asked for
    return [name for name, each in objects.items() if inspect.isroutine(each) or inspect.isclass(each)]


def members(name, cls):
    """The dotted names of a class and of the public methods and properties that it defines."""
    yield name, cls
    for attribute, each in vars(cls).items():
        found = each.__func__ if isinstance(each, classmethod | staticmethod) else each
        found = getattr(found, "fget", None) or getattr(found, "func", None) or found  # of properties
        if inspect.isfunction(found) and not attribute.startswith("_"):
            yield f"{name}.{attribute}", found


def collect():
    """All that is checked: dotted name, function or class."""
    names = {f"{package}.{name}" for package in CHECKED for name in public(import_module(package))}
    for name in hfnb.__all__:
        module = getattr(getattr(hfnb, name), "__module__", "")  # a module itself has none
        if any(f"{module}.".startswith(f"{package}.") for package in CHECKED):
            names.add(f"hfnb.{name}")
    for name in sorted(names):
        package, last = name.rsplit(".", 1)
        found = getattr(import_module(package), last)
        yield from members(name, found) if inspect.isclass(found) else [(name, found)]


PUBLIC = dict(collect())


def test_nothing_public_is_missed():
    assert {"hfnb.set_threads", "hfnb.models.mlp", "hfnb.plots.look"} <= PUBLIC.keys()
    assert {"hfnb.models.Network.init", "hfnb.models.Network.layers"} <= PUBLIC.keys()


def attributes(cls):
    """The names in the section Attributes of a class's docstring."""
    entries = ClassDoc(cls, config={"show_class_members": False})["Attributes"]
    return {name for entry in entries for name in entry.name.split(", ")}


def has_own_arguments(cls):
    """Whether a class is called with arguments of its own."""
    if issubclass(cls, Enum) or getattr(cls, "_is_protocol", False):
        return False  # nobody calls it: its members exist, and other classes implement it
    # Exceptions and dictionaries take the arguments of their base.
    return "__init__" in vars(cls) or not issubclass(cls, Exception | dict)


def not_asked(found):
    """The errors of numpydoc that do not matter for this function or class."""
    if inspect.isclass(found):
        if not has_own_arguments(found):
            return NOT_ASKED | {"PR01"}
        # The fields of a result are attributes: users read and do not pass them.
        fields = inspect.signature(found).parameters.keys() <= attributes(found)
        return NOT_ASKED | {"PR01"} if fields else NOT_ASKED
    # If nothing comes out: numpydoc also counts `return self.save(state)`, and the yield of a context.
    nothing = inspect.signature(found).return_annotation in (None, Iterator[None])
    return NOT_ASKED | {"RT01", "YD01"} if nothing else NOT_ASKED


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring_says_what_goes_in_and_comes_out(name):
    allowed = not_asked(PUBLIC[name])
    errors = [f"{code}: {text}" for code, text in validate(name)["errors"] if code not in allowed]
    assert not errors


@pytest.mark.parametrize("name", PUBLIC)
def test_annotations_are_complete(name):
    found = PUBLIC[name]
    if inspect.isclass(found) and not has_own_arguments(found):
        return
    signature = inspect.signature(found)
    missing = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.name not in ("self", "cls") and parameter.annotation is parameter.empty
    ]
    if not inspect.isclass(found) and signature.return_annotation is signature.empty:
        missing.append("return")
    assert not missing
    # Every annotation has a meaning: a misspelt name in quotes raises NameError.
    typing.get_type_hints(found.__init__ if inspect.isclass(found) else found)
