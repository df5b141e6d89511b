"""The theme: one accent on quiet neutrals, with fonts of the system. `web/*.css` has the other styles."""

import gradio as gr
from gradio.themes.utils import colors, sizes

_SANS = ["ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace"]


def build_theme() -> gr.themes.Base:
    """Builds Gradio's theme."""
    theme = gr.themes.Base(
        primary_hue=colors.teal,
        neutral_hue=colors.zinc,
        radius_size=sizes.radius_md,
        spacing_size=sizes.spacing_md,
        text_size=sizes.text_md,
        font=_SANS,
        font_mono=_MONO,
    )
    return theme.set(
        body_background_fill="white",
        body_background_fill_dark="*neutral_950",
        block_border_width="0px",
        block_shadow="none",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        input_background_fill="white",
        input_background_fill_dark="*neutral_900",
        checkbox_background_color_selected="*primary_700",
        checkbox_background_color_selected_dark="*primary_700",
        checkbox_border_color_selected="*primary_700",
        checkbox_border_color_selected_dark="*primary_700",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_500",
        button_primary_background_fill_hover_dark="*primary_400",
        button_primary_text_color="white",
        button_primary_text_color_dark="*neutral_950",
    )
