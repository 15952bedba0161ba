"""Names of the measures, for code that reads results without loading torch."""

METRIC_NAMES = (
    "map",
    "map_absent_zero",
    "micro_f1",
    "macro_f1",
    "hamming_loss",
    "micro_f1_oracle_k",
    "macro_f1_oracle_k",
    "hamming_loss_oracle_k",
    "one_error",
    "ranking_loss",
    "coverage",
)
