"""The door to the C core, and what else is of the machine: shared libraries and threads.

In come NumPy arrays and the paths of libraries. Out go pointers to kernels, the results of calls
and errors with types; nothing else in the package imports cffi.
"""
