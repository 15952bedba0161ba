"""Export a model: ``python launch/export.py`` is the same program as ``bbam-ray export``."""

import sys

from bbam_ray.cli.main import main

if __name__ == "__main__":
    main(["export", *sys.argv[1:]])
