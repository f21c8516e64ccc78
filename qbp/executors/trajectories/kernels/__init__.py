"""What Numba compiles for trajectories."""
