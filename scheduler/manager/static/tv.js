// Takes the key of a screen from its address, which only this browser knows, and hands it in.
(() => {
  const key = location.hash.slice(1);
  if (!key) return;
  document.querySelector("input[name=key]").value = key;
  document.querySelector("form").submit();
})();
