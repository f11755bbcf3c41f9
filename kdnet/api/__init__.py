"""The Python API: nets, solvers and net specifications, in the ways of pycaffe."""
