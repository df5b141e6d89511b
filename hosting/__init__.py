"""The web around the app: middleware in front of all routes, and the parts of Gradio that need taming.

Only `tunnel.py` imports gradio.
"""
