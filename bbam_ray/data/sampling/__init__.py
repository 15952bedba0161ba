"""Which samples are labelled, in what order they are drawn, and which worker handles which of them.

Everything here is a pure function of labels, seed, epoch and number of workers.
"""
