// A print holds the messages that the page shows. It says how many there are before them.
addEventListener('beforeprint', () => {
  const earlier = document.querySelector('#earlier'), number = earlier?.textContent.match(/[\d,]+/)?.[0];
  if (!number || !earlier.offsetParent) return;
  const note = document.createElement('p');
  note.className = 'not-printed';
  note.textContent = `Not printed: ${number} earlier messages. Show them on the page to print them, too.`;
  document.querySelector('#scroll').prepend(note);
});
addEventListener('afterprint', () => document.querySelector('.not-printed')?.remove());
