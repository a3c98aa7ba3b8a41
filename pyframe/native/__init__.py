"""The interface to the C core, and what depends on the machine: shared libraries and threads.

In come NumPy arrays and the paths of libraries. Out go pointers to kernels, the results of calls
and typed errors; nothing else in the package imports cffi.
"""
