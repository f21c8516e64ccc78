"""What Numba compiles: words carried back, and the values of graphs of words."""
