"""Tools of MCP servers: the `[[mcp]]` entries of the settings, their health, and the connections of each run.

Only `connection.py`, `http_streams.py` and `stdio_streams.py` import the package `mcp`, which takes a second: they are
imported when a server is first connected.
"""
