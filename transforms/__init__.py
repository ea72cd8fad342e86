"""Beam wiring around pure formats and kernels."""
