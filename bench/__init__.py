"""The benchmark: how the page streams a reply in a real browser, beside a plain Gradio chat on the same model; how soon
it shows what a tool yields; and how fast the bundled model writes, beside the bare binding.

`make bench`, or `python -m bench` from the root of the repository. Figures of one run can be compared with each other;
those of different machines or moments cannot, since browser, server and whatever else runs share the processors.
"""
