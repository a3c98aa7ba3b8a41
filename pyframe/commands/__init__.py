"""The command ``pyframe``: one module for each of its larger subcommands.

In come the words of a command line. Out go text, pictures, timings and new packages; nothing else
in pyframe imports from here.
"""
