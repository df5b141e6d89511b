// The slim page for an iframe, `/?embed=1`. Runs before web/frame.js, in a function of its own. Without the parameter it does
// nothing.
if (new URLSearchParams(location.search).get('embed') !== '1') return;
const KEY = 'glassbox embedded'; // the tab's conversation, which web/embedded_bar.js keeps
document.body.classList.add('embed', 'folds');

// A reload of the page around this one begins with the frame's first address. So the conversation is remembered.
const address = new URL(location.href);
let kept = null;
try { kept = sessionStorage.getItem(KEY); } catch { /* a browser may refuse storage */ }
if (kept && !address.searchParams.has('conversation') && !address.searchParams.has('run')) {
  for (const name of ['q', 'backend', 'memory']) address.searchParams.delete(name); // they are for a new conversation
  address.searchParams.set('conversation', kept);
  history.replaceState(history.state, '', address);
}

// The page around gives the frame the focus: then it is the message box that has it.
addEventListener('focus', () => {
  if (document.activeElement && document.activeElement !== document.body) return;
  (document.querySelector('#first-frame textarea') ?? document.querySelector('#prompt textarea'))?.focus();
});
document.addEventListener('glassbox:escape', () => { if (parent !== window) parent.postMessage({ glassbox: 'close' }, '*'); });
