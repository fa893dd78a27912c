"""The jailed process around wasm/: its frames, its jail, its loop."""
