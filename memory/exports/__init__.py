"""Files of conversations: our own export, ChatGPT's and Claude's, and how they are read.

Nothing here imports a database or a framework: a large file is read by a process of its own (`child.py`).
"""
