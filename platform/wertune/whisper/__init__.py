"""The 8-bit base and its adapter: loaded, run, decoded, saved."""
