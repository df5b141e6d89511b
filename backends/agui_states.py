"""The states of remote agents at the ends of runs, for the next turn of the conversation. They are in memory only."""

import json
from collections import OrderedDict
from typing import Any

_MOST_STATES, _MOST_CHARACTERS = 500, 8_000_000


class KeptStates:
    """The states of one agent by the runs that they are of; the least recently used are dropped."""

    def __init__(self) -> None:
        self._states: OrderedDict[str, tuple[str, str]] = OrderedDict()
        """The conversation and the state, as JSON, by run."""
        self._characters = 0

    def keep(self, run_id: str, conversation_id: str, state: Any) -> None:
        """Keeps the state of a run, in place of an earlier one of the run; an empty one is dropped."""
        self._drop(run_id)
        if not state:
            return
        text = json.dumps(state)
        self._states[run_id] = conversation_id, text
        self._characters += len(text)
        while len(self._states) > _MOST_STATES or self._characters > _MOST_CHARACTERS:
            self._drop(next(iter(self._states)))

    def get(self, run_id: str | None) -> Any:
        """Returns the state of a run; an empty one if there is none."""
        if run_id is None or run_id not in self._states:
            return {}
        self._states.move_to_end(run_id)
        return json.loads(self._states[run_id][1])

    def forget(self, conversation_id: str) -> None:
        """Drops the states of a conversation."""
        for run_id in [run_id for run_id, (of, _) in self._states.items() if of == conversation_id]:
            self._drop(run_id)

    def _drop(self, run_id: str) -> None:
        _, text = self._states.pop(run_id, ("", ""))
        self._characters -= len(text)
