"""The architectures of the bundled pairs."""
