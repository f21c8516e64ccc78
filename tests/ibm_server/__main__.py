"""``python -m ibm_server``, in `tests/`."""

import sys

from ibm_server.server import main

if __name__ == "__main__":
    sys.exit(main())
