"""Programs that run beside the benchmark, each in a process of its own. See bench/companion.py."""
