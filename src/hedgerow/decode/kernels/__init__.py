"""Implementations of the step: the array API definition, and kernels that equal it."""
