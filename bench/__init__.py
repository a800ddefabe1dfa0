"""The benchmarks: hfnb against its peers on the same cores. README.md says how to read them."""
