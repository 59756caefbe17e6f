"""Markov chain Monte Carlo: kernels in one contract."""
