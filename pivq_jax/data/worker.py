"""Worker process of `shards.write_shards`: reads its work from standard input.

It imports neither JAX nor tensorflow-datasets as a whole, so it starts quickly.
"""

import pickle
import sys
from multiprocessing.connection import Connection

from pivq_jax.data.shards import work

if __name__ == "__main__":
    work(Connection(int(sys.argv[1]), readable=False), *pickle.load(sys.stdin.buffer))
