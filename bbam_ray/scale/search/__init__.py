"""The search itself: search spaces, the order of configurations, pruning, and warm starts.

Nothing here starts a process: results of trials go in, configurations come out."""
