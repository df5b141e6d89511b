"""What the page does when a visitor chooses a backend, sets its options or brings a key: more handlers."""

import asyncio
from dataclasses import replace
from typing import Any

import gradio as gr

from agent.turns import Turns
from backends import Backend, Health
from components.assets import as_text, warn
from components.header import PARAMETERS, render_parameters
from components.options import render_options
from components.render import render_backends, render_models
from hosting.identity import Identity
from memory.messages import TurnOptions
from memory.modes import MODES
from runs.errors import ChatError
from runs.requester import Requester

Updates = tuple[Any, ...]


class HeaderHandlers:
    """One for all pages. What the backends are like is different for each visitor, by the keys that they brought."""

    def __init__(self, turns: Turns, identity: Identity) -> None:
        self.backends, self._identity, self._toolbox = turns.backends, identity, turns.toolbox
        self._quota, settings = turns.quota, turns.settings
        self._prompt, self._memory = settings.system_prompt, settings.memory

    def _visitor(self, request: gr.Request) -> str | None:
        return self._identity.visitor(request.cookies or {})

    async def on_choose(self, backend: str, request: gr.Request, model: str | None = None) -> Updates:
        """For a backend or a model that was chosen. -> model, options, but for their values"""
        visitor = self._visitor(request)
        return self.model(backend, visitor, model), *self.options(backend, visitor, model=model)

    async def on_choose_mode(self, mode: str) -> list[Any]:
        """-> parameters, but for their values"""
        return render_parameters(mode if mode in MODES else self._memory.default, self._memory)

    async def on_keep(self, backend: str, mode: str, request: gr.Request, model: str | None = None) -> Updates:
        """Draws what belongs to a choice that a late answer left as it was. -> model, options, parameters"""
        return *await self.on_choose(backend, request, model), *await self.on_choose_mode(mode)

    async def on_use(self, data: gr.EventData) -> Updates:
        """A mode with its parameters, as they were compared. -> memory, parameters"""
        told = data._data if isinstance(data._data, dict) else {}
        mode, given = told.get("memory"), told.get("parameters")
        if mode not in MODES or not isinstance(given, dict):
            return (gr.skip(),) * (1 + len(PARAMETERS))
        own = {name: n for name in PARAMETERS if isinstance(n := given.get(name), int)}
        drawn = render_parameters(mode, self._memory)
        return mode, *(
            one | ({"value": own[name]} if name in own else {}) for name, one in zip(PARAMETERS, drawn, strict=True)
        )

    async def on_backends_changed(self, request: gr.Request, backend: str = "", model: str | None = None) -> Updates:
        """When there is news of a backend. -> backend, about, model"""
        visitor = self._visitor(request)
        backends = gr.update(choices=render_backends(self.backends, visitor))
        return backends, self.backends.describe(visitor), self.model(backend, visitor, model)

    async def on_key(self, text: str, backend: str, request: gr.Request, model: str | None = None) -> Any:
        """Takes a visitor's key, and tries it. -> backend, about, model, options"""
        visitor = self._visitor(request)
        try:
            chosen = self.backends.get(backend)
            if chosen.settings.key_name is None:
                raise ChatError("invalid_request", f"{chosen.name} takes no key.")
            health = await self._tried(text or "", chosen, self._identity.requester(request))
            if health.state == "key_refused":
                warn(f"{chosen.name} refused this key: check that all of it was pasted.")
            elif health.ready:
                gr.Info(as_text(f"{chosen.name} is ready with your key."))
            else:
                warn(f"Your key is kept, but {chosen.name} is not ready: {health.reason.rstrip('.?')}.")
        except ChatError as e:
            warn(e.message)
            return gr.skip()  # nothing has changed, and a guesser of keys costs as little as can be
        return *await self.on_backends_changed(request, backend, model), *self.options(backend, visitor, model=model)

    async def _tried(self, text: str, backend: Backend, requester: Requester) -> Health:
        """How the backend is with a key, which is kept unless it is refused. Raises ChatError.

        A trial that is cancelled counts as a refused key: the provider is asked all the same.
        """
        keys, visitor = self.backends.keys, requester.visitor
        with self._quota.trying_key(requester):
            key = keys.parse(visitor, text)
            try:
                health = await backend.check_health(key)
            except asyncio.CancelledError:
                self._quota.count_refused_key(requester)
                raise
            if health.state == "key_refused":
                self._quota.count_refused_key(requester)
            else:
                keys.store(visitor, backend.name, key)
        return health

    async def on_forget_key(self, backend: str, request: gr.Request, model: str | None = None) -> Updates:
        """-> backend, about, model, options"""
        visitor = self._visitor(request)
        self.backends.keys.forget(visitor, backend)
        return *await self.on_backends_changed(request, backend, model), *self.options(backend, visitor, model=model)

    def model(self, backend: str, visitor: str | None, model: str | None, *, opened: bool = False) -> Any:
        """The model dropdown for a backend."""
        named = self._named(backend)
        return render_models(named, self.backends.key(named, visitor), model, opened=opened)

    def _named(self, backend: str) -> Backend:
        return next((b for b in self.backends if b.name == backend), self.backends.default)

    def options(
        self, backend: str, visitor: str | None, options: TurnOptions | None = None, model: str | None = None
    ) -> Updates:
        """How the options are for a backend with a model; with `options`, their values too: the system prompt and the
        tools in force, and its model.
        """
        chosen = self._named(backend)
        key, model = self.backends.key(chosen, visitor), options.model if options else model
        try:
            chosen = chosen.with_model(model or None, key)
        except ChatError:  # it is another backend's, or not offered any more
            chosen = chosen.with_model(None, key)
        if options:
            prompt = self._prompt if options.system_prompt is None else options.system_prompt
            options = replace(options, system_prompt=prompt, tools=tuple(self._toolbox.known(options.tools)))
        return render_options(chosen, key, options)
