// Forms that tell what they would mean: after each change the server is asked as its "compute" button does, and what is
// marked as computed is put in place. Without this script the button does it.
"use strict";
for (const form of document.querySelectorAll("form[data-compute]")) {
  let asked = 0;
  form.addEventListener("change", async () => {
    const turn = ++asked;
    const body = new URLSearchParams(new FormData(form));
    body.set("do", "compute");
    const answer = await fetch(form.action, { method: "POST", body }).catch(() => null);
    // A newer change has asked meanwhile, or the session is over: the button tells.
    if (!answer?.ok || answer.redirected || turn !== asked) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const old of form.querySelectorAll("[data-computed]")) {
      const drawn = page.getElementById(old.id);
      if (drawn) old.replaceWith(document.adoptNode(drawn));
    }
  });
}
