"""What happens in which order. Importing it switches Prefect's reports about its users off."""

import os

# Read when Prefect is imported; it has no setting for it that a file could hold.
os.environ.setdefault("DO_NOT_TRACK", "1")
