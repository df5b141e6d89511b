"""A line on 127.0.0.1 between a browser and the app that can be cut, or go dead without being closed."""

import asyncio
import threading
from contextlib import suppress


class Line:
    """`with Line(port) as line:` passes all on from `line.url`. For a thread other than the one it is used in."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._up = True
        self._open: set[asyncio.StreamWriter] = set()
        self._dead: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self.url = ""
        self.dropped = 0
        """Connections that were cut or went dead."""

    def __enter__(self) -> "Line":
        ready = threading.Event()

        async def serve() -> None:
            self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
            self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"
            ready.set()

        def run() -> None:
            self._loop.run_until_complete(serve())
            self._loop.run_forever()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        async def end() -> None:
            self._server.close()
            self._abort()
            if others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others, timeout=5)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def cut(self) -> None:
        """Resets all that is open, and all that comes until `mend`."""
        self._up = False
        self._loop.call_soon_threadsafe(self._abort)

    def mend(self) -> None:
        self._up = True

    def freeze(self) -> None:
        """What is open now says nothing any more, to either side; what is opened later works."""
        self._loop.call_soon_threadsafe(self._freeze)

    def _abort(self) -> None:
        self.dropped += len(self._open)
        for writer in self._open:
            writer.transport.abort()

    def _freeze(self) -> None:
        self.dropped += len(self._open)
        self._dead |= self._open

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._up:
            writer.transport.abort()
            return
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, forth}

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                while data := await source.read(65536):
                    if sink in self._dead:
                        continue
                    sink.write(data)
                    await sink.drain()
            if sink not in self._dead:
                sink.close()

        try:
            await asyncio.gather(pump(reader, forth), pump(back, writer))
        finally:
            self._open -= {writer, forth}
            for end in (writer, forth):
                end.close()
