"""Settings of all tests."""

from __future__ import annotations

import os

# Before NumPy and torch: threads that wait for each other on small arrays cost more than they
# give, ten times the time on a machine whose cores are in use.
os.environ.setdefault("OMP_NUM_THREADS", "1")
