"""``python -m lightning_synthqual.cli`` is ``synthqual``."""

import sys

from lightning_synthqual.cli import main

sys.exit(main())
