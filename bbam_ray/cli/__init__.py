"""The command line: flags, printing and exit codes, one file per command.

What a command does is in ``commands/``; nothing here trains, searches or reads data.
"""
