"""The text of a reply, as a fold over a run's events."""

from runs import events
from runs.events import Event


class ReplyText:
    """The `token`s so far, without those that turned out to be thinking."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._call = 0
        """How many pieces there were before the latest call of the model."""

    def take(self, event: Event) -> None:
        match event:
            case events.Token():
                self._pieces.append(event.content)
            case events.ModelStart():
                self._call = len(self._pieces)
            case events.Reasoning(retracts=True):
                del self._pieces[self._call :]

    def __str__(self) -> str:
        return "".join(self._pieces)
