"""`python -m mtf_utils` is `mtf`, for environments whose scripts are not on the path."""

from __future__ import annotations

import sys

from mtf_utils.cli import main

sys.exit(main())
