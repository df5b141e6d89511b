"""The script of a local model's process: llama.cpp's server, through xllamacpp.

It is a separate process because loading a model holds Python's interpreter lock, and because a crash in native code
must not end the app. It imports no other module of this project. It reads one line of JSON (path, key, context, slots,
threads), writes one line (`address`, `error` or `missing`), and runs until its standard input closes, which it does
when the parent process ends.
"""

import json
import sys
import tempfile

BATCH = 128
"""Tokens of a prompt that are processed at once; a cancel takes effect between two batches."""
REUSE = 64
"""The fewest tokens of a part that has moved in the prompt, and is moved in the cache instead of being read again."""


def main() -> None:
    """Starts the server and waits for the end of standard input."""
    config = json.loads(sys.stdin.readline())
    try:
        import xllamacpp
    except ImportError as e:
        print(json.dumps({"missing": e.name or "xllamacpp"}), flush=True)
        return

    params = xllamacpp.CommonParams()
    params.model.path = config["path"]
    params.model_alias = {"local"}  # otherwise responses contain the path
    params.n_ctx = config["context"] * config["slots"]
    params.n_parallel = config["slots"]
    params.n_batch = params.n_ubatch = BATCH
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = config["threads"]
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
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as e:
        print(json.dumps({"error": str(e)}), flush=True)
        return
    print(json.dumps({"address": server.listening_address}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
