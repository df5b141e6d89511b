"""The process that holds a local model: llama.cpp's own server, through xllamacpp. Run as a script, imports nothing of
ours.

A process of its own, because building the model holds Python's interpreter lock for as long as it loads, and because a
crash in native code must not take the page with it. Reads one line of JSON (path, key, context, slots, threads) from
standard input, answers with one line (`address`, `error` or `missing`), and lives until its standard input closes: so
it ends with its parent, however that ends.
"""

import json
import sys

BATCH = 128
"""Tokens of a prompt read in one go: a cancel is noticed between two of them."""
CACHE_MIB = 128
"""For conversations that have lost their slot to others, and come back; llama.cpp's own default is eight gigabytes."""


def main() -> None:
    wanted = json.loads(sys.stdin.readline())
    try:
        import xllamacpp
    except ImportError as e:
        print(json.dumps({"missing": e.name or "xllamacpp"}), flush=True)
        return

    params = xllamacpp.CommonParams()
    params.model.path = wanted["path"]
    params.model_alias = {"local"}  # else its answers would name the path
    params.n_ctx = wanted["context"] * wanted["slots"]
    params.n_parallel = wanted["slots"]
    params.n_batch = params.n_ubatch = BATCH
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = wanted["threads"]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [wanted["key"]]
    params.verbosity = 0
    params.cache_ram_mib = CACHE_MIB
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
