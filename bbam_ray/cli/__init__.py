"""The command line: flags, printing and exit codes, one file per command.

What a command does is in ``commands/``; nothing here trains, searches or reads data.
"""

from bbam_ray.cli.module_path import leave_out_current_folder

leave_out_current_folder()  # before anything else is imported
