"""`python -m foretaste VERB`: the entry point of `ray job submit`."""

import sys

from foretaste.cli import main

sys.exit(main())
