"""``bbam-ray tune`` as after thousands of trials, for test_tables_with_parts.py: tables have parts from
the start, which are merged at the end only, and all trials but the first share their series."""

from __future__ import annotations

import sys

from bbam_ray.cli.main import main
from bbam_ray.results import store
from bbam_ray.scale.study import prometheus

store._SMALL_BYTES = 0
store._MERGE_SHARE = 1e-9
prometheus.SHOWN_TRIALS = 1

if __name__ == "__main__":
    sys.argv.insert(1, "tune")
    main()
