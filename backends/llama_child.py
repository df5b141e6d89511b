"""The script of a local model's process: llama.cpp's server, through xllamacpp.

It is a separate process because loading a model holds Python's interpreter lock, and because a crash in native code
must not end the app. It imports no other module of this project. It reads one line of JSON (path, key, context, slots,
threads, reading) and writes one line (`address`, `error` or `missing`). Then it runs until its standard input closes,
which it does when the parent process ends. With `most_threads` in the JSON it measures instead: it writes the `reading`
that is best and whether the machine was `idle`, and ends.
"""

import http.client
import json
import os
import sys
import tempfile
import time
from typing import Any
from urllib.parse import urlsplit

REUSE = 64
"""The fewest tokens of a part that has moved in the prompt, and is moved in the cache instead of being read again."""
_BATCHES = (512, 256, 128, 64, 32)
_BATCH_S = 1.0
"""Seconds that a batch may take: a cancel takes effect between two batches."""
_TRIALS, _TRIAL_TOKENS, _TRIAL_BATCH = 2, 64, 128
_BETTER = 1.2
"""The factor by which more threads must be faster: they take the processors from everything else."""
_IDLE = 0.85
"""The least share of the time in which the model's threads had a processor, on a machine that is idle."""
_NICE = 19
"""The priority of measuring: everything else goes first."""


def main() -> None:
    """Starts the server and waits for the end of standard input; or measures."""
    config = json.loads(sys.stdin.readline())
    try:
        import xllamacpp
    except ImportError as e:
        print(json.dumps({"missing": e.name or "xllamacpp"}), flush=True)
        return
    try:
        if "most_threads" in config:
            os.nice(_NICE)
            print(json.dumps(_measured(xllamacpp, config)), flush=True)
            return
        server = xllamacpp.Server(_parameters(xllamacpp, config, **config["reading"]))
    except RuntimeError as e:
        print(json.dumps({"error": str(e)}), flush=True)
        return
    try:
        print(json.dumps({"address": server.listening_address}), flush=True)
        sys.stdin.read()
    finally:
        os._exit(0)  # the end of the server object waits for its threads, in rare cases forever


def _parameters(xllamacpp: Any, config: dict[str, Any], *, threads: int, batch: int) -> Any:
    """The parameters of a server that reads with this number of threads, in batches of as many tokens."""
    params = xllamacpp.CommonParams()
    params.model.path = config["path"]
    params.model_alias = {"local"}  # otherwise responses contain the path
    params.n_ctx = config["context"] * config["slots"]
    params.n_parallel = config["slots"]
    params.n_batch = params.n_ubatch = batch
    params.cpuparams.n_threads = config["threads"]
    params.cpuparams_batch.n_threads = threads
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [config["key"]]
    params.verbosity = 0
    # without this, llama.cpp switches the thinking off where it does not recognize the template
    params.default_template_kwargs = {"enable_thinking": "true"}
    # a cache outside of the slots would give one visitor's text back for another's prompt, and after it was erased
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    params.n_cache_reuse = REUSE
    params.slot_save_path = tempfile.gettempdir()  # slots cannot be erased without one; nothing is saved in it
    params.ui = False
    return params


def _measured(xllamacpp: Any, config: dict[str, Any]) -> dict[str, Any]:
    """Measures how fast the model reads a short text with its own number of threads and with the most.

    Returns the better number and a fitting size of a batch, and whether the machine was idle enough to keep them.
    """
    threads, most = config["threads"], config["most_threads"]
    wall, processor = _reading_s(xllamacpp, config, most)
    best, rate, idle = most, _TRIAL_TOKENS * most / processor, processor > _IDLE * most * wall
    if most > threads:
        (wall, processor), quick = _reading_s(xllamacpp, config, threads), wall
        faster, idle = wall / quick, processor > _IDLE * threads * wall
        best, faster = (most, faster) if faster >= _BETTER else (threads, 1.0)
        rate = faster * _TRIAL_TOKENS * threads / processor
    batch = next((size for size in _BATCHES if size <= _BATCH_S * rate), _BATCHES[-1])
    return {"reading": {"threads": best, "batch": batch}, "idle": idle}


def _reading_s(xllamacpp: Any, config: dict[str, Any], threads: int) -> tuple[float, float]:
    """Reads a text of `_TRIAL_TOKENS` tokens several times; returns the least seconds, and those of the processors."""
    small = config | {"context": 4 * _TRIAL_TOKENS, "slots": 1}
    server = xllamacpp.Server(_parameters(xllamacpp, small, threads=threads, batch=_TRIAL_BATCH))
    connection = http.client.HTTPConnection(urlsplit(server.listening_address).netloc)
    found = []
    for trial in range(_TRIALS):
        tokens = [100 + trial + n for n in range(_TRIAL_TOKENS)]
        body = json.dumps({"prompt": tokens, "n_predict": 1, "cache_prompt": False})
        wall, processor = time.perf_counter(), time.process_time()
        connection.request("POST", "/completion", body, {"Authorization": f"Bearer {config['key']}"})
        connection.getresponse().read()
        found.append((time.perf_counter() - wall, time.process_time() - processor))
    connection.close()
    return min(found)


if __name__ == "__main__":
    main()
