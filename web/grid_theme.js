// The scheme of the page that compares: the browser's, or that of `?__theme=`, as on the main page. A script of its own that
// runs before anything is drawn.
const wanted = new URLSearchParams(location.search).get('__theme'), dark = matchMedia('(prefers-color-scheme: dark)');
const apply = () => document.documentElement.classList.toggle('dark', wanted ? wanted === 'dark' : dark.matches);
dark.addEventListener('change', apply);
apply();
