"""Krylov solvers: they know only an operator and a right-hand side."""
