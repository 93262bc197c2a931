"""Memory over 5 million rows: 10 models of 50 features, through decode, windows, drift, quality and enrichment.

Sends requests of multi-row spans, one million rows after the other, to the connector in this process, and prints the resident
memory after each. Flat means: the last million adds no more than noise to the first after warm-up.
Run: ``python benchmarks/bench_memory.py [--rows N]``.
"""
