"""Score new samples: ``python launch/predict.py`` is the same program as ``bbam-ray predict``."""

import sys

from bbam_ray.cli.main import main

if __name__ == "__main__":
    main(["predict", *sys.argv[1:]])
