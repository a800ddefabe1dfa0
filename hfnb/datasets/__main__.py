"""``python -m hfnb.datasets`` fetches MNIST, so that later programs find it in the cache."""

import logging
import sys

from hfnb.datasets._mnist import read_files

if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    logging.getLogger("hfnb").setLevel(logging.INFO)
    try:
        print(f"MNIST: ready ({read_files()[1]})")
    except (ImportError, OSError, ValueError) as error:
        sys.exit(str(error))
