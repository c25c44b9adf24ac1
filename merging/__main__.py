"""One Basin without a browser: `python -m merging <command>`; `--help` lists the commands."""

from __future__ import annotations

import sys

from merging.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
