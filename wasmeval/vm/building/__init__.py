"""Building the images of the VM tier from Debian packages or from an OCI archive."""
