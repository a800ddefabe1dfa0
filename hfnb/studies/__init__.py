"""The experiments that notebooks and benchmarks share; no other part of the package imports them."""
