"""The error types that the brain itself gives, as `non_retryable_errors` and readers of runs see them."""

from __future__ import annotations

from typing import Final

EXPRESSION: Final = "EXPRESSION"
"""An expression failed, or gave what its place cannot take."""
OUTPUTS: Final = "OUTPUTS"
"""The work was done, but `outputs` or `results` could not be mapped."""
TIMEOUT: Final = "TIMEOUT"
"""The whole time of a composite, a child or a signal has passed."""
CANCELLED: Final = "CANCELLED"
"""What a task waited for was ended from outside, not by the run."""
ITEMS_FAILED: Final = "ITEMS_FAILED"
"""More items of a map failed than it tolerates."""
MAP_TOO_LARGE: Final = "MAP_TOO_LARGE"
"""A map that cannot be cut has more items than one history can hold."""
LOOP_EXHAUSTED: Final = "LOOP_EXHAUSTED"
"""`until` was not met in `max_iterations`."""
ENDED: Final = "ENDED"
"""A task of type `end` with status FAILED ended the run."""
SLICE_LOST: Final = "SLICE_LOST"
"""A part of a map was ended from outside, and nobody knows what it did."""
