"""``python -m cachee_shm.cli``: the command ``cachee`` of this interpreter."""

import sys

from cachee_shm.cli.main import main

sys.exit(main())
