"""``python -m metaverify``."""

import sys

from metaverify.cli import main

sys.exit(main())
