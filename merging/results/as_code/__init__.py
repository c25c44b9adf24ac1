"""The same result without a browser: a request as Python, and as a command.

Both are text that runs. Bundled pairs and families are named; uploaded models are known here by
fingerprint alone, so their files have stand-in names (`A.safetensors`; of fusions `1.safetensors`),
and `note` says so.
"""

from merging.results.as_code.command import command
from merging.results.as_code.notes import note
from merging.results.as_code.python import has_code, python

__all__ = ["command", "has_code", "note", "python"]
