"""Numba kernels: arrays and state in, arrays out. No I/O, no Arrow, no Feature.

Conventions, which hold for every kernel here and for those of plugins:

* columns first, then ``start``, then state, then parameters, then the preallocated output;
* rows ``0 .. start`` of the columns are history (the rows a lookback still needs), rows from
  ``start`` on are new, and ``out[column, row - start]`` is filled for the new rows only;
* only valid rows are ever seen: flagged rows are taken out before and put back as nulls after;
* undefined is NaN.

In shape legends ``n`` = rows (history included), ``l`` = levels, ``k`` = columns of the output.
"""
