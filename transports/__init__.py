"""How anything but the page reaches a run: HTTP routes beside it, in the same process. Knows nothing of gradio."""
