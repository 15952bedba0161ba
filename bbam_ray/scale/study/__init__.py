"""One study from plan to result: running trials, recording rows, budgets, trackers, confirmation.

``run.py`` is the place to start reading."""
