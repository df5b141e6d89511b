"""One run: its events, its log, the state derived from them. Imports neither gradio nor langchain."""
