"""``python -m mlspan_processor`` is ``mlspan``."""

import sys

from mlspan_processor.cli import main

if __name__ == "__main__":
    sys.exit(main())
