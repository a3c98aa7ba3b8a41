"""What makes a graph run: it becomes a program, and C runs the program in one call.

In come graphs, optimizers and what is fed. Out go losses, outputs and gradients, and parameters
that are a step further; memory, fusion, threads and interruptions are this room's business alone.
"""
