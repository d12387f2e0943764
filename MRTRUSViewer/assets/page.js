// What trame's client does not do itself: keys, files, and telling the server that the tab is closed.
(() => {
  const here = (path) => new URL(path, document.baseURI);

  async function upload(input, role, done, failed) {
    const files = [...input.files];
    input.value = "";
    if (!files.length) return;
    await fetch(here(`upload/${role}`), { method: "DELETE" });
    for (const file of files) {
      const answer = await fetch(here(`upload/${role}/${encodeURIComponent(file.name)}`), {
        method: "POST",
        body: file,
      });
      if (!answer.ok) {
        window.trame.trigger(failed, [await answer.text()]);
        return;
      }
    }
    window.trame.trigger(done, [role]);
  }

  async function download(offer, failed) {
    const answer = await fetch(here(`download/${offer}`));
    if (!answer.ok) {
      window.trame.trigger(failed, [await answer.text()]);
      return;
    }
    const name = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition"));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await answer.blob());
    link.download = name ? name[1] : offer;
    link.click();
    URL.revokeObjectURL(link.href);
  }

  const typing = (target) => target instanceof Element && target.closest("input:not([type=checkbox]), textarea");

  window.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.key.length !== 1) return;
    if (typing(event.target) || !window.trame) return;
    window.trame.trigger("key", [event.key]);
  });
  window.addEventListener("pagehide", () => navigator.sendBeacon(here("bye")));
  // On a narrow page the panel would lie over the views: it waits for its button.
  const opening = setInterval(() => {
    if (!window.trame) return;
    clearInterval(opening);
    if (window.innerWidth < 900) window.trame.state.set("panel_shown", false);
  }, 50);

  // A session that has ended, by time or by a crash, leaves pictures that answer nothing.
  const watching = setInterval(async () => {
    const answer = await fetch(here("ready")).catch(() => null);
    if (answer && answer.status !== 410) return;
    clearInterval(watching);
    const note = document.createElement("div");
    note.className = "session-ended";
    note.setAttribute("role", "alert");
    note.textContent = "The session has ended: load the page again.";
    document.body.append(note);
  }, 10000);

  window.mrtrus = { upload, download };
})();
