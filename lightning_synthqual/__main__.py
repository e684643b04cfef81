"""``python -m lightning_synthqual`` is ``synthqual``."""

import sys

from lightning_synthqual.cli import main

sys.exit(main())
