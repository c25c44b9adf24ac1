"""What a person uploaded: kept under its fingerprint, and loaded by it."""
