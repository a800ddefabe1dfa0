"""``python -m hfnb.datasets``: fetch the data once, so that everything later starts at once."""

import sys

from hfnb.datasets._mnist import read_files

if __name__ == "__main__":
    try:
        print(f"MNIST: ready ({read_files()[1]})")
    except (OSError, ValueError) as error:
        sys.exit(str(error))
