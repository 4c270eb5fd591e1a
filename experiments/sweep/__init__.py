"""Sweeps: many runs of one study, in any order, on any number of workers, with the same bytes at the end.

`specification` says what a run is and names it by its content, `folder` keeps what is finished, `workers` runs the rest
here or on a cluster, `runner` ties them together, and `schema` states the columns of the results.
"""
