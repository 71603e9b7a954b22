"""Kernels of the step: the definition over the array API standard, and compiled kernels with equal results."""
