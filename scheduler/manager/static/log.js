// A log grows while its task runs; when it ends the page is loaded once more. The server paints and escapes.
(() => {
  const log = document.getElementById("log");
  if (!log?.dataset.live) return;
  const source = new EventSource(log.dataset.live);
  source.addEventListener("log", (event) => {
    const { all, add } = JSON.parse(event.data);
    const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 40;
    if (all !== undefined) log.innerHTML = all;
    if (add !== undefined) log.insertAdjacentHTML("beforeend", add);
    if (atEnd) log.scrollTop = log.scrollHeight;
  });
  source.addEventListener("end", () => { source.close(); location.reload(); });
})();
