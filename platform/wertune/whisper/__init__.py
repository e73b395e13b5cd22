"""The 8-bit base and its adapter: loaded, run, decoded, saved."""

import logging

# It has a line for every 8-bit product, and at its import, so that this comes before it, one of 4-bit products where a
# processor has AVX-512 BF16: they ask for another package, which is not missed.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
