"""Readers of conversation files: Glassbox's own export, ChatGPT's and Claude's.

Nothing here imports a database or a framework: a child process (`child.py`) reads large files.
"""
