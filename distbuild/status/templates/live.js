// Keeps a page as the controller is: elements come ready from there, and take the place of those
// that are shown. Without this the page is as it was when it was asked for.
"use strict";
(() => {
  const main = document.querySelector("main");
  const sign = document.getElementById("live");
  const log = document.getElementById("log");
  const ahead = Number(main.dataset.now) - Date.now() / 1000;
  const now = () => Date.now() / 1000 + ahead;
  const mostPieces = 5000; // of a log
  let over = false;

  const span = (seconds) => {
    const whole = Math.max(0, Math.floor(seconds));
    for (const [big, small, length, count] of
      [["d", "h", 3600, 24], ["h", "min", 60, 60], ["min", "s", 1, 60]]) {
      const unit = length * count;
      if (whole >= unit) {
        const rest = Math.floor((whole % unit) / length);
        return `${Math.floor(whole / unit)} ${big}` + (rest ? ` ${rest} ${small}` : "");
      }
    }
    return `${whole} s`;
  };

  const parse = (text, isSvg) => {
    const box = document.createElement("template");
    box.innerHTML = isSvg ? `<svg>${text}</svg>` : text;
    return (isSvg ? box.content.firstElementChild : box.content).firstElementChild;
  };

  const place = (element) => {
    const old = document.getElementById(element.id);
    if (old) old.replaceWith(element);
    else document.getElementById(element.dataset.into)?.append(element);
  };

  const atEnd = () => innerHeight + scrollY >= document.documentElement.scrollHeight - 40;

  const append = (text) => {
    const follow = atEnd();
    log.append(document.createTextNode(text));
    while (log.childNodes.length > mostPieces) log.firstChild.remove();
    if (follow) scrollTo(0, document.documentElement.scrollHeight);
  };

  const count = () => {
    for (const each of document.querySelectorAll("[data-since]")) {
      each.textContent = span(now() - Number(each.dataset.since));
    }
    const chart = document.getElementById("chart");
    if (!chart || over) return;
    const length = Math.max(1, now() - Number(chart.dataset.began));
    const percent = (part) => `${Math.max(0, (100 * part) / length).toFixed(3)}%`;
    for (const bar of chart.querySelectorAll(".bar")) {
      const from = Number(bar.dataset.from);
      const until = bar.dataset.until === undefined ? length : Number(bar.dataset.until);
      bar.setAttribute("x", percent(from));
      bar.setAttribute("width", percent(until - from));
    }
    for (const mark of chart.querySelectorAll("[data-at]")) {
      const at = percent(Number(mark.dataset.at));
      for (const name of mark.localName === "line" ? ["x1", "x2"] : ["x"]) {
        mark.setAttribute(name, at);
      }
    }
  };

  const say = (text) => {
    sign.hidden = false;
    sign.textContent = text;
    sign.className = text;
  };

  const source = new EventSource(
    main.dataset.stream + (main.dataset.stream.includes("?") ? "&" : "?") +
    "since=" + main.dataset.stamp);
  source.onopen = () => say("live");
  source.onerror = () => say(source.readyState === EventSource.CLOSED ? "not live" : "waiting");
  source.onmessage = (event) => {
    const update = JSON.parse(event.data);
    for (const text of update.html ?? []) place(parse(text, false));
    for (const text of update.svg ?? []) place(parse(text, true));
    for (const [id, height] of Object.entries(update.sizes ?? {})) {
      document.getElementById(id)?.setAttribute("height", height);
    }
    if (update.log) append(update.log);
    count();
    if (update.over) {
      over = true;
      source.close();
      say("over");
    }
  };
  // The controller does not remember what this page shows, so that all of it is asked for again.
  source.addEventListener("reload", () => {
    source.close();
    setTimeout(() => location.reload(), performance.now() > 5000 ? 0 : 5000);
  });
  setInterval(count, 1000);
})();
