"""The search itself: search spaces, the order of configurations, pruning, and warm starts.

Nothing here starts a process; a trial's result goes in, a configuration comes out."""
