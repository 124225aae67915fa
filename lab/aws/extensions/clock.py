"""Time: what AWS does by itself, some time after it was asked to."""

import logging
import threading
import time
from collections.abc import Callable

TICK = 0.05

# moto is not safe for threads. Whoever touches its state, a request or the clock, holds this.
lock = threading.RLock()

steps: list[Callable[[float], None]] = []


def every_tick(step: Callable[[float], None]) -> Callable[[float], None]:
    """Registers what is to be called, with the time in seconds, twenty times a second."""
    steps.append(step)
    return step


def run() -> None:
    """Calls the steps until the process ends. One that fails is logged and called again."""
    while True:
        with lock:
            for step in steps:
                try:
                    step(time.monotonic())
                except Exception:
                    logging.exception("%s.%s failed", step.__module__, step.__name__)
        time.sleep(TICK)
