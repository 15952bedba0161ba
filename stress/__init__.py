"""Programs that break things on purpose: fault injection, fuzzing and soak tests.

They are too slow for the test suite; tests/chaos runs a short version. See stress/README.md."""
