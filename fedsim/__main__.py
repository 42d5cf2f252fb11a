"""``python -m fedsim`` is the ``fedsim`` command."""

from __future__ import annotations

import sys

from fedsim.cli import main

sys.exit(main())
