"""Progress of a run that must end after a number of steps, or at a time of day.

With a deadline, the remaining share of the run is spread over the remaining wall time after every
step, so the schedules reach their ends on time however fast the machine turns out to be. A step
that took far longer than its predecessors (the process was stopped) counts as a normal one, and
the rest is re-planned.
"""

import statistics
import time


class Progress:
    """`value` runs from 0 to 1. Call tick() after each step."""

    def __init__(self, steps=None, deadline=None, value=0.0, now=time.time):
        if (steps is None) == (deadline is None):
            raise ValueError("give either steps or a deadline")
        self.value, self._steps, self._deadline, self._now = value, steps, deadline, now
        self._last, self._recent = now(), []
        self.active_seconds = 0.0

    def tick(self):
        now = self._now()
        took = now - self._last
        self._last = now
        if len(self._recent) >= 5:
            took = min(took, 4 * statistics.median(self._recent))
        self._recent = [*self._recent[-20:], took]
        self.active_seconds += took
        if self._steps:
            self.value = min(1.0, self.value + 1 / self._steps)
            if self.value > 1 - 0.5 / self._steps:
                self.value = 1.0
        else:
            remaining = self._deadline - now
            self.value += (1 - self.value) * min(1.0, took / (took + max(0.0, remaining)))
            if remaining < took / 2:
                self.value = 1.0
        return self.value
