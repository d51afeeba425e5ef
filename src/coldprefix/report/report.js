"use strict";
// The filter over the table of cells, and details that open when a link leads into them.
const filter = document.getElementById("filter");
const rows = Array.from(document.querySelectorAll("#cell-table tbody tr"));
const shown = document.getElementById("shown");
function apply() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let n = 0;
  for (const row of rows) {
    const hit = words.every((word) => row.textContent.toLowerCase().includes(word));
    row.hidden = !hit;
    n += hit ? 1 : 0;
  }
  shown.textContent = n + " of " + rows.length + " cells";
}
function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
  if (target) target.scrollIntoView();
}
filter.addEventListener("input", apply);
addEventListener("hashchange", reveal);
apply();
reveal();
