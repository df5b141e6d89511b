"""The page, one file per part: `build_*` makes components, `wire_*` attaches listeners, `render_*` makes values."""
