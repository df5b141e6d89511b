"""The ways to a run beside the page: HTTP routes, Server-Sent Events, WebSocket, AG-UI. Does not import gradio."""
