"""Under libfaketime 0.9.10 `time.sleep` answers EINVAL: sleep by other means."""

import select
import time
from typing import SupportsIndex


def _sleep(seconds: float | SupportsIndex) -> None:
    select.select([], [], [], float(seconds))


time.sleep = _sleep
