"""One budget for each peer, however often it connects."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link
    from cachee_bridge.wire.budget import Budget

BUDGETS_MAX = 4096


class Budgets:
    def __init__(self) -> None:
        self._budgets: dict[str, Budget] = {}
        """By name of peers that are or were up; the one that came up last is at the end."""

    def came_up(self, link: Link) -> None:
        """What the peer owes from earlier links counts on this one as well."""
        known = self._budgets.pop(link.name, None)
        if known is not None and known is not link.throttle.budget:
            known.owe(link.throttle.budget.owed)
            link.throttle.budget = known
        self._budgets[link.name] = link.throttle.budget
        if len(self._budgets) > BUDGETS_MAX:
            del self._budgets[next(iter(self._budgets))]
