"""What a page does when somebody clicks or types: sorting, filtering, zooming; no network, no library."""

SCRIPT = """
'use strict';
for (const table of document.querySelectorAll('table.sort')) {
  const body = table.tBodies[0], heads = table.tHead.rows[0].cells;
  const key = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const compare = (a, b) => {
    const [x, y] = [parseFloat(a), parseFloat(b)];
    if (a === '' || b === '') return (a === '') - (b === '');
    return isNaN(x) || isNaN(y) ? a.localeCompare(b, undefined, {numeric: true}) : x - y;
  };
  for (const [column, head] of [...heads].entries()) head.querySelector('button')?.addEventListener('click', () => {
    const down = head.getAttribute('aria-sort') === 'ascending';
    for (const other of heads) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    const rows = [...body.rows].sort((a, b) => (down ? -1 : 1) * compare(key(a, column), key(b, column)));
    body.append(...rows);
  });
}
for (const field of document.querySelectorAll('input[data-filters]')) field.addEventListener('input', () => {
  const wanted = field.value.toLowerCase();
  for (const row of document.getElementById(field.dataset.filters).tBodies[0].rows)
    row.hidden = !row.textContent.toLowerCase().includes(wanted);
});
const zoom = document.getElementById('zoom');
if (zoom) {
  const large = zoom.querySelector('img'), text = zoom.querySelector('p');
  let at = null;
  const buttons = () => [...document.querySelectorAll('button.zoom')].filter((one) => one.offsetParent !== null);
  const show = (button) => {
    at = button;
    const image = button.querySelector('img');
    large.src = image.src;
    large.alt = image.alt;
    text.textContent = image.alt;
    large.style.width = Math.min(Math.max(image.naturalWidth, 480), 1400) + 'px';
    large.classList.toggle('pixels', image.naturalWidth < 480);
    if (!zoom.open) zoom.showModal();
  };
  const step = (by) => {
    const all = buttons();
    show(all[(all.indexOf(at) + by + all.length) % all.length]);
  };
  for (const button of document.querySelectorAll('button.zoom')) button.addEventListener('click', () => show(button));
  zoom.addEventListener('keydown', (event) => {
    if (event.key === 'ArrowRight' || event.key === 'ArrowLeft') step(event.key === 'ArrowRight' ? 1 : -1);
  });
  zoom.addEventListener('click', (event) => { if (event.target === zoom) zoom.close(); });
  zoom.querySelector('.before').addEventListener('click', () => step(-1));
  zoom.querySelector('.after').addEventListener('click', () => step(1));
  zoom.addEventListener('close', () => at?.focus());
}
addEventListener('beforeprint', () => document.querySelectorAll('details').forEach((one) => { one.open = true; }));
"""
ZOOM = (
    '<dialog id="zoom" aria-label="Enlarged image"><img src="data:," alt=""><p></p><form method="dialog">'
    '<button type="button" class="before" aria-label="image before">←</button>'
    '<button type="button" class="after" aria-label="next image">→</button>'
    "<button>Close</button></form></dialog>"
)
