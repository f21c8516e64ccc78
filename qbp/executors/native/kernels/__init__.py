"""Kernels: the native engine's inner loops, compiled by Numba on first use."""
