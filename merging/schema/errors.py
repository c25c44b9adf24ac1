"""Everything a caller can do wrong, as a small tree.

MergingError
├── ArchitectureMismatchError   two dicts of tensors do not belong to one architecture
├── CheckpointError             a file cannot be read as a checkpoint, or must not be
├── DataError                   a data set cannot be used with this model
├── SymmetryError               a permutation spec does not fit, or its certificate fails
├── UnknownNameError            no such pair, method, option, data set or architecture
├── StoppedError                the caller asked long work to stop
├── StoreError                  results cannot be kept (disk full, read-only, damaged)
└── ComputeError                the compute process did not do what it was asked

A message says where, what was given, what was expected and what to do; screens show it as it is.
"""


class MergingError(Exception):
    """Any error that a caller of `merging` can cause, and can mend."""


class ArchitectureMismatchError(MergingError):
    """Two dicts of tensors do not belong to one architecture."""


class CheckpointError(MergingError):
    """A file cannot be read as a checkpoint, or must not be."""


class DataError(MergingError):
    """A data set cannot be used with this model."""


class SymmetryError(MergingError):
    """A permutation spec does not fit the model, or its certificate fails."""


class UnknownNameError(MergingError):
    """No pair, method, option, data set or architecture has that name."""


class StoppedError(MergingError):
    """The caller asked long work to stop."""


class StoreError(MergingError):
    """Results cannot be kept or read back: disk full, read-only, or damaged."""


class ComputeError(MergingError):
    """The compute process did not do what it was asked."""
