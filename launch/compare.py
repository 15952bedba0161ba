"""Compare methods: ``python launch/compare.py`` is the same program as ``bbam-ray compare``."""

import sys

from bbam_ray.cli.main import main

if __name__ == "__main__":
    main(["compare", *sys.argv[1:]])
