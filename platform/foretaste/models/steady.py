"""Sizes from which on the processor gives a row of a batch the same bits whatever the other rows are.

Measured of torch's products of matrices (MKL) and elementwise functions, and held by tests: fewer than four rows take
another way, and what is left over after whole vectors of numbers is rounded by another function.
"""

STEADY_ROWS = 4
"""Rows of a product of matrices."""
STEADY_TOKENS = 32
"""Every sequence has a multiple of so many tokens."""
STEADY_CANDIDATES = 16
"""Every request has a multiple of so many candidates."""
