"""What may be permuted: the permutation symmetries of any model, derived and certified."""

from merging.symmetry.certificate import (
    Certificate,
    certify,
    derive_certified,
    find_symmetry,
    share_moved,
    summarise,
)
from merging.symmetry.chosen_spec import check_by_hand, frozen, read_spec, with_reasons
from merging.symmetry.derive import Derivation, derive

__all__ = [
    "Certificate",
    "Derivation",
    "certify",
    "check_by_hand",
    "derive",
    "derive_certified",
    "find_symmetry",
    "frozen",
    "read_spec",
    "share_moved",
    "summarise",
    "with_reasons",
]
