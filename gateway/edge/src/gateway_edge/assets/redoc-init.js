window.addEventListener("load", () => {
  // The search index runs in a worker made from a blob; without it the page needs no worker at all.
  Redoc.init("/openapi.json", { disableSearch: true, hideDownloadButton: false }, document.getElementById("redoc"));
});
