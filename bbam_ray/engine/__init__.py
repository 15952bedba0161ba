"""Plain torch training. Runs without Ray: nothing below this folder imports it."""
