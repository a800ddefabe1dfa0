"""``python -m hfnb.datasets``: fetch the data once, so that everything later starts at once."""

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
