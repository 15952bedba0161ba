"""The commands as library functions, shared by the command line and the Python interface.

Each takes typed arguments and a listener and returns a result; nothing here prints or reads flags.
"""
