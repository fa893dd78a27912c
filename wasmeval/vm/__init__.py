"""The microVM tier: evaluations that need a whole operating system."""
