"""A path walked one evaluation at a time, for a caller that holds the model itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..field.reverse import Reverse
from ..generation import Plan
from ..process.base import Process
from ..rng import Rng
from ..solve.base import moves


class _Ask(Exception):
    """Where the solver wants an estimate that nobody has given yet."""

    def __init__(self, x: Tensor, t: Tensor):
        super().__init__()
        self.x, self.t = x, t


class Turns:
    """A solver turned inside out: it says where to evaluate next, is told the estimate, and says where to go on.

    A move that needs several estimates is made anew from its beginning with those that are known, until none is
    lacking. So it needs no thread, and costs a little arithmetic but no evaluation more. `rng(k)` gives the noise of
    the move `k` of the path: the same each time it is asked, or the attempts would differ.
    """

    def __init__(self, process: Process, route: Plan, rng: Callable[[int], Rng]):
        self.moves = list(moves(route.path, route.solver, route.again))
        self.field, self.rng = Reverse(process, self._answer), rng
        self.k = 0
        self.x: Tensor
        self.asked: Tensor | None = None  # the state to evaluate at, None when the path has ended
        self.t: Tensor
        self._answers: list[Tensor] = []
        self._given = 0
        self._memory: dict[int, Any] = {}

    def begin(self, x: Tensor, k: int = 0) -> None:
        """Stand at the state `x` where the move `k` begins, with no memory of an earlier one."""
        self.k, self.x, self._answers, self._memory = k, x, [], {}
        self._go()

    def tell(self, y: Tensor) -> None:
        """Take `y`, the estimate at the state that was asked for, and go on."""
        self._answers.append(y)
        self._go()

    def swap(self, x: Tensor) -> None:
        """Begin the present move at `x` in place of its own state; inside a move it changes nothing."""
        if self.fresh:
            self.x = x
            self._go()

    @property
    def fresh(self) -> bool:
        """Whether what is asked for is the first estimate of a move."""
        return not self._answers

    def _go(self) -> None:
        while self.k < len(self.moves):
            t, s, by, fresh = self.moves[self.k]
            if by is None:
                self.x = self.field.diffuse(self.x, t, s, self.rng(self.k))
            else:
                known = None if fresh else self._memory.get(id(by))
                self._given = 0
                try:
                    self.x, self._memory[id(by)] = by.step(
                        self.field, self.x, t, s, by.init() if known is None else known, self.rng(self.k)
                    )
                except _Ask as ask:
                    self.asked, self.t = ask.x, ask.t
                    return
            self.k, self._answers = self.k + 1, []
        self.asked = None

    def _answer(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        self._given += 1
        if self._given > len(self._answers):
            raise _Ask(x, t)
        return self._answers[self._given - 1]
