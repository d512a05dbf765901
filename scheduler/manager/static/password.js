// The token of a letter moves from the address into the form, and out of the address.
(() => {
  const token = location.hash.slice(1);
  if (!token) return;
  const field = document.querySelector("input[name=token]");
  field.value = token;
  field.closest("label").hidden = true;
  history.replaceState(null, "", location.pathname);
  document.querySelector("input[name=new]").focus();
})();
