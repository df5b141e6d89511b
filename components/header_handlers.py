"""Handlers for the header and the options: the visitor chooses a backend, a model or a mode, or brings a key."""

import asyncio
from typing import Any

import gradio as gr

from agent.turns import Turns
from backends import Backend, Health
from components.assets import as_text, warn
from components.header import render_parameters
from components.options import render_options
from components.page_state import Updates
from components.render import render_model
from hosting.identity import Identity
from memory.modes import MODES
from memory.options import TurnOptions
from runs.errors import ChatError
from runs.requester import Requester


class HeaderHandlers:
    """The handlers of the header and the options. One instance serves all pages; each visitor has keys of their own."""

    def __init__(self, turns: Turns, identity: Identity) -> None:
        self.backends, self._identity, self._toolbox = turns.backends, identity, turns.toolbox
        self._quota, settings = turns.quota, turns.settings
        self._prompt, self._memory = settings.system_prompt, settings.memory
        self._search_first = settings.tools.documents

    def _visitor(self, request: gr.Request) -> str | None:
        return self._identity.visitor(request.cookies or {})

    async def on_choose(self, backend: str, request: gr.Request, model: str | None = None) -> Updates:
        """Renders the menu of models and the key after a choice of backend or model."""
        visitor = self._visitor(request)
        return {"model": self.model(backend, visitor, model), **self.options(backend, visitor)}

    async def on_choose_mode(self, mode: str) -> Updates:
        """Renders the parameters of a memory mode, without their values."""
        return render_parameters(mode if mode in MODES else self._memory.default, self._memory)

    async def on_keep(self, backend: str, mode: str, request: gr.Request, model: str | None = None) -> Updates:
        """Renders what depends on the visitor's choices, after a late answer for other choices was dropped."""
        return await self.on_choose(backend, request, model) | await self.on_choose_mode(mode)

    async def on_use(self, data: gr.EventData) -> Updates:
        """Chooses a compared memory mode with its parameters: the event is {memory, parameters}."""
        sent = data._data if isinstance(data._data, dict) else {}
        mode, parameters = sent.get("memory"), sent.get("parameters")
        if mode not in MODES or not isinstance(parameters, dict):
            return {}
        updates = render_parameters(mode, self._memory)
        for name, update in updates.items():
            if isinstance(value := parameters.get(name), int):
                updates[name] = update | {"value": value}
        return {"memory": mode, **updates}

    async def on_backends_changed(self, request: gr.Request, backend: str = "", model: str | None = None) -> Updates:
        """Renders the backends' health, and the models of the chosen one."""
        visitor = self._visitor(request)
        return {
            "about": self.backends.describe(visitor),
            "model": self.model(backend, visitor, model),
        }

    async def on_key(self, text: str, backend: str, request: gr.Request, model: str | None = None) -> Updates:
        """Tries a visitor's key at the provider, and keeps it unless the provider rejects it."""
        try:
            chosen = self.backends.get(backend)
            if chosen.settings.key_name is None:
                raise ChatError("invalid_request", f"{chosen.name} takes no key.")
            health = await self._try_key(text or "", chosen, self._identity.requester(request))
            if health.state == "key_refused":
                warn(f"{chosen.name} rejected this key. Check that you pasted all of it.")
            elif health.ready:
                gr.Info(as_text(f"{chosen.name} is ready with your key."))
            else:
                warn(f"Your key was saved, but {chosen.name} is not ready: {health.reason.rstrip('.?')}.")
        except ChatError as e:
            warn(e.message)
            return {}  # nothing has changed, and a rejected guess should cost little
        return await self._changed_key(backend, request, model)

    async def _changed_key(self, backend: str, request: gr.Request, model: str | None) -> Updates:
        options = self.options(backend, self._visitor(request))
        return await self.on_backends_changed(request, backend, model) | options

    async def _try_key(self, text: str, backend: Backend, requester: Requester) -> Health:
        """Returns the backend's health with a key, and keeps the key unless it is rejected. Raises ChatError.

        A cancelled trial counts as a rejected key, because the provider is asked anyway.
        """
        keys, visitor = self.backends.keys, requester.visitor
        with self._quota.trying_key(requester):
            key = keys.parse(visitor, text)
            try:
                health = await backend.bind(key).check_health()
            except asyncio.CancelledError:
                self._quota.count_refused_key(requester)
                raise
            if health.state == "key_refused":
                self._quota.count_refused_key(requester)
            else:
                keys.store(visitor, backend.name, key)
        return health

    async def on_forget_key(self, backend: str, request: gr.Request, model: str | None = None) -> Updates:
        """Forgets the visitor's key for a backend."""
        self.backends.keys.forget(self._visitor(request), backend)
        return await self._changed_key(backend, request, model)

    def model(self, backend: str, visitor: str | None, model: str | None, *, opened: bool = False) -> Any:
        """Renders the menu of a backend's models."""
        return render_model(self._bound(backend, visitor), model, opened=opened)

    def _bound(self, backend: str, visitor: str | None) -> Backend:
        named = next((b for b in self.backends if b.name == backend), self.backends.default)
        return self.backends.bind(named.name, visitor)

    def options(self, backend: str, visitor: str | None, options: TurnOptions | None = None) -> Updates:
        """Renders the key for a backend; with `options`, their values too: the system prompt and the tools in force."""
        if options:
            prompt = self._prompt if options.system_prompt is None else options.system_prompt
            tools = tuple(self._toolbox.known(options.tools))
            first = self._search_first if options.documents is None else options.documents
            options = options.model_copy(update={"system_prompt": prompt, "tools": tools, "documents": first})
        updates = render_options(self._bound(backend, visitor), options)
        if options and self._toolbox.servers.servers:  # their tools come and go
            updates["tools"] = gr.update(choices=self._toolbox.names, value=updates["tools"])
        return updates
