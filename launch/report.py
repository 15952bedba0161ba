"""Write a report: ``python launch/report.py DIR`` is the same program as ``bbam-ray report``."""

import sys

from bbam_ray.cli.main import main

if __name__ == "__main__":
    main(["report", *sys.argv[1:]])
