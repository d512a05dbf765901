// Replaces tiles and order rows by what the server has drawn anew. The page works without it, after a reload.
(() => {
  const RELOAD_AFTER_MS = 5000; // never more often, whatever comes
  const link = document.getElementById("link");
  const source = new EventSource("/bench/live");
  const show = (text, lost) => { link.textContent = text; link.classList.toggle("lost", lost); };
  source.onopen = () => show("Live", false);
  source.onerror = () => {
    show("Connection lost, trying again", true);
    // The browser gives up for good when the answer is no stream: the login page, or an error.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), RELOAD_AFTER_MS);
  };
  source.addEventListener("tile", (event) => {
    const { id, html } = JSON.parse(event.data);
    const old = document.getElementById(id);
    if (old) old.outerHTML = html;
    else if (performance.now() > RELOAD_AFTER_MS) location.reload(); // a new slot, perhaps of a new bench
  });
  source.addEventListener("order", (event) => {
    const { id, html } = JSON.parse(event.data);
    const old = document.getElementById(id);
    if (old) { old.outerHTML = html; return; }
    // Newest first: ids grow with time. Open orders older than those of the page come here too.
    const orders = document.getElementById("orders");
    const next = [...orders.rows].find((row) => row.id < id);
    if (next) next.insertAdjacentHTML("beforebegin", html); else orders.insertAdjacentHTML("beforeend", html);
  });
  // The server no longer knows this session: the login page does.
  source.addEventListener("bye", () => location.reload());
})();
