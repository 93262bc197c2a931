"""A model that predicts when this is imported, as a warm-up does, and then in a pool of the kind that is named."""

import multiprocessing
import sys

from tests.instrumentation.apps.model import predict

predict(0)


if __name__ == "__main__":
    with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
        pool.map(predict, range(4))
