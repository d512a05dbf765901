// Replaces tiles and order rows by what the server has drawn anew, sends the tiles' forms without leaving the page, and
// keeps what is this screen's own: sound, full screen, and where each tile lies. Pages work without it, after a reload.
(() => {
  const RELOAD_AFTER_MS = 5000; // never more often, whatever comes
  const words = document.body.dataset;
  const link = document.getElementById("link");
  const order = document.querySelector("main[data-order]");
  const scan = document.querySelector(".scan input[name=code]");

  // A scanner types wherever the page is: what is typed outside of a field goes to the scanner's.
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, textarea, select, button, a, [contenteditable]");
    if (scan && !typing && event.key.length === 1 && !event.ctrlKey && !event.metaKey && !event.altKey) scan.focus();
  });

  const kept = (key) => { try { return JSON.parse(localStorage.getItem(key)); } catch { return null; } };
  const keep = (key, value) => { try { localStorage.setItem(key, JSON.stringify(value)); } catch { /* a private window */ } };

  // Sound: one tone when a card is ready, a lower one when something is wrong.
  const TONES = { done: 880, bad_card: 220, retry: 220, unsuitable: 330, confirm: 440, guarded: 440, out_of_service: 220 };
  const sound = document.getElementById("sound");
  let audio = null;
  const showSound = () => {
    sound.textContent = kept("sound") ? words.soundOn : words.soundOff;
    sound.setAttribute("aria-pressed", String(Boolean(kept("sound"))));
  };
  const beep = (state) => {
    if (!TONES[state] || !kept("sound")) return;
    audio ??= new AudioContext();
    const tone = audio.createOscillator();
    const volume = audio.createGain();
    tone.frequency.value = TONES[state];
    volume.gain.value = 0.1;
    tone.connect(volume).connect(audio.destination);
    tone.start();
    tone.stop(audio.currentTime + 0.25);
  };
  if (sound) {
    sound.hidden = false;
    sound.addEventListener("click", () => { keep("sound", !kept("sound")); showSound(); beep("done"); });
    showSound();
  }
  const full = document.getElementById("full");
  if (full && document.fullscreenEnabled) {
    full.hidden = false;
    full.addEventListener("click", () => {
      if (document.fullscreenElement) document.exitFullscreen(); else document.documentElement.requestFullscreen();
    });
  }

  // Arranging: the order of the tiles of a bench, as they were dragged on this screen.
  const arrange = (bench) => {
    const places = kept(`bench ${bench.dataset.appliance}`) ?? [];
    const tiles = bench.querySelector(".tiles");
    for (const id of places) {
      const tile = document.getElementById(id);
      if (tile && tile.parentElement === tiles) tiles.append(tile);
    }
  };
  const handle = (tile) => { tile.querySelector("h3").draggable = true; };
  for (const bench of document.querySelectorAll(".bench")) {
    arrange(bench);
    bench.querySelectorAll(".tile").forEach(handle);
    let dragged = null;
    bench.addEventListener("dragstart", (event) => {
      dragged = event.target.closest(".tile");
      event.dataTransfer.setData("text/plain", dragged?.id ?? "");
    });
    bench.addEventListener("dragover", (event) => { if (dragged) event.preventDefault(); });
    bench.addEventListener("drop", (event) => {
      const over = event.target.closest(".tile");
      if (!dragged || !over || over === dragged) return;
      event.preventDefault();
      // Tiles are drawn anew while one is dragged: it is found by its id.
      const from = document.getElementById(dragged.id);
      const tiles = [...over.parentElement.children];
      if (tiles.indexOf(from) < tiles.indexOf(over)) over.after(from); else over.before(from);
      keep(`bench ${bench.dataset.appliance}`, [...over.parentElement.children].map((tile) => tile.id));
      dragged = null;
    });
  }

  // A tile's form is sent in the background; what it did is said where a page after it would say it.
  document.addEventListener("submit", async (event) => {
    const form = event.target.closest(".tile form");
    if (!form) return;
    event.preventDefault();
    const body = new URLSearchParams(new FormData(form, event.submitter));
    const answer = await fetch(form.action, { method: "POST", body }).catch(() => null);
    const page = answer && new DOMParser().parseFromString(await answer.text(), "text/html");
    const said = page?.querySelector(answer.ok ? ".notice" : "[role=alert]");
    let notice = document.querySelector(".notice");
    if (!notice) {
      notice = document.createElement("p");
      notice.className = "notice";
      notice.setAttribute("role", "status");
      document.querySelector("main").before(notice);
    }
    notice.classList.toggle("lost", !answer?.ok);
    notice.textContent = said?.textContent ?? words.lost;
    if (answer?.ok && scan) scan.form.elements.slot.value = form.closest(".tile").id;
  });

  if (!link && !order) return;
  let reloading = false;
  const reloadSoon = () => {
    if (!reloading) setTimeout(() => location.reload(), Math.max(0, RELOAD_AFTER_MS - performance.now()));
    reloading = true;
  };
  const source = new EventSource(words.stream ?? "/bench/live");
  const show = (text, lost) => { if (link) { link.textContent = text; link.classList.toggle("lost", lost); } };
  source.onopen = () => show(words.live, false);
  source.onerror = () => {
    show(words.lost, true);
    // The browser gives up for good when the answer is no stream: the login page, or an error.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), RELOAD_AFTER_MS);
  };
  // The server no longer knows this session: the login page does.
  source.addEventListener("bye", () => location.reload());

  if (order) {
    // The page of one order is drawn anew as a whole, but never under the hands of who types in it.
    source.addEventListener("order", async (event) => {
      if (JSON.parse(event.data).id !== order.dataset.order || order.contains(document.activeElement)) return;
      const answer = await fetch(location.pathname).catch(() => null);
      if (!answer?.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const drawn = page.querySelector("main[data-order]");
      if (drawn && !order.contains(document.activeElement)) order.replaceChildren(...drawn.childNodes);
    });
    return;
  }
  source.addEventListener("tile", (event) => {
    const { id, html } = JSON.parse(event.data);
    const old = document.getElementById(id);
    if (!old) {
      reloadSoon(); // a new slot, perhaps of a new bench
      return;
    }
    const [before, focus] = [old.dataset.state, old.contains(document.activeElement) ? document.activeElement.value : null];
    old.outerHTML = html;
    const tile = document.getElementById(id);
    handle(tile);
    if (focus) [...tile.querySelectorAll("button")].find((button) => button.value === focus)?.focus();
    if (tile.dataset.state !== before) beep(tile.dataset.state);
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
})();
