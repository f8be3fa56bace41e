// What every page loads: htmx with its live parts, and the few things that a server can't do: printing and the keyboard.
import "htmx.org/dist/htmx.esm.js";
import "htmx.org/dist/ext/hx-sse.js";

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-print]")) window.print();
});

// A select with data-submit sends its form when it changes.
document.addEventListener("change", (event) => {
  if (event.target.matches("select[data-submit]")) event.target.form.requestSubmit();
});

// A slider says where it stands while it moves.
document.addEventListener("input", (event) => {
  if (!event.target.matches("input[type=range]")) return;
  for (const output of event.target.form?.querySelectorAll("output") ?? []) {
    if (output.htmlFor.contains(event.target.id)) output.value = event.target.value;
  }
});

// The live part says when it lost the router, and when it is back.
function mark(live) {
  for (const element of document.querySelectorAll("[data-live]")) element.dataset.live = live;
}
document.addEventListener("htmx:sse:after:message", () => mark("on"));
document.addEventListener("htmx:sse:error", () => mark("lost"));

// Keys for lists of work: a key named in data-key presses its button, unless somebody is typing.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, textarea")) return;
  const button = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
  if (button) {
    event.preventDefault();
    button.click();
  }
});
