"""Train one configuration: ``python launch/train.py`` is the same program as ``bbam-ray train``."""

import sys

from bbam_ray.cli.main import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
