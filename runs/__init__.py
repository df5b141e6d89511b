"""One run: its events, its log, the state derived from it. Knows neither gradio nor langchain."""
