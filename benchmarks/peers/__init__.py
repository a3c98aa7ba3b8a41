"""One process for each peer and workload; see `common`."""
