"""What may be permuted: the permutation symmetries of any model, derived and certified."""

from merging.symmetry.certificate import (
    Certificate,
    certify,
    derive_certified,
    find_symmetry,
    share_moved,
    summarise,
)
from merging.symmetry.derive import Derivation, derive

__all__ = [
    "Certificate",
    "Derivation",
    "certify",
    "derive",
    "derive_certified",
    "find_symmetry",
    "share_moved",
    "summarise",
]
