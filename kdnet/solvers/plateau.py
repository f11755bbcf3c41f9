"""``lr_policy: "plateau"``: the rate drops when the smoothed loss has not fallen for a while."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Plateau:
    """How far the policy has come; what a snapshot keeps of it.

    Attributes:
        drops: how often the rate was multiplied by gamma.
        lowest: the lowest smoothed loss so far.
        last_event: the iteration of the last new lowest loss, or of the last drop.
    """

    drops: int = 0
    lowest: float = math.inf
    last_event: int = 0

    def see(self, iteration: int, smoothed_loss: float, windows: Sequence[int]) -> bool:
        """Take in the loss of an iteration.

        Args:
            iteration: the iteration whose loss it is.
            smoothed_loss: the mean loss of the last average_loss iterations.
            windows: plateau_winsize.

        Returns:
            Whether the rate drops from the next iteration on.

        Source: the policy of the same name in the forks of weiliu89 and Intel, where the loss of
        an iteration counts for its own update already.
        """
        if smoothed_loss < self.lowest:
            self.lowest, self.last_event = smoothed_loss, iteration
        if self.drops >= len(windows) or iteration - self.last_event < windows[self.drops]:
            return False
        self.drops += 1
        self.last_event = iteration
        return True
