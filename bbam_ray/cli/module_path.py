"""The module search path of the command line: without the current folder.

Python takes an empty entry of PYTHONPATH, as in ``PYTHONPATH=$PYTHONPATH:/my/modules``, for the current
folder. A file there named ``statistics.py`` would then replace the module of Python, here and in workers.
"""

from __future__ import annotations

import os
import sys


def leave_out_current_folder() -> None:
    """Ignore empty entries of PYTHONPATH, in this process and in those that it starts."""
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if "" not in entries or entries == [""]:
        return
    named = [entry for entry in entries if entry]
    os.environ["PYTHONPATH"] = os.pathsep.join(named)
    current = os.path.abspath(os.curdir)
    if current not in map(os.path.abspath, named):
        start = 0 if sys.flags.safe_path else 1  # the first entry is the script's folder
        sys.path[start:] = [e for e in sys.path[start:] if os.path.abspath(e) != current]
