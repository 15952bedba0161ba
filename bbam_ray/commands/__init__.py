"""What the commands do, for the command line and for Python alike.

Each takes typed arguments and a listener and returns a result; nothing here prints or reads flags.
"""
