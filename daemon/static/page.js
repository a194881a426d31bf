// Keeps the page up to date, shows times where the reader is, and asks before it acts.
// Without it every page still tells all it knows, as of when it was loaded.
"use strict";

const base = document.body.dataset.base;
const every = 3000;                       // ms between two polls
const pulse = document.getElementById("pulse");
const word = document.getElementById("pulse-word");
const said = document.getElementById("said");

function beat(state, text) {
  pulse.className = state;
  word.textContent = text;
}

// -- times ----------------------------------------------------------------------------------

const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "always" });

function ago(moment) {
  const seconds = Math.round((moment - Date.now()) / 1000);
  const [unit, size] = units.find(([, size]) => Math.abs(seconds) >= size) || units[3];
  return relative.format(Math.trunc(seconds / size), unit);
}

function tellTimes(within = document) {
  for (const time of within.querySelectorAll("time[datetime]")) {
    const moment = new Date(time.dateTime);
    time.title = time.dateTime;
    time.textContent = Math.abs(moment - Date.now()) < 86400e3 ? ago(moment)
      : moment.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
  }
}

// What is wider than the screen is moved by keyboard, too.
function reach() {
  for (const wide of document.querySelectorAll(".scroll")) {
    if (wide.scrollWidth > wide.clientWidth) wide.tabIndex = 0;
    else wide.removeAttribute("tabindex");
  }
}

// -- what changes -----------------------------------------------------------------------------

// Whoever goes by keyboard stays at the same link or button, if that is still there.
function place(part) {
  const stops = () => [...part.querySelectorAll("a, button")];
  const active = document.activeElement;
  const at = stops().indexOf(active);
  if (at < 0) return () => {};
  return () => stops()[at]?.textContent === active.textContent && stops()[at].focus();
}

let renewing = false, again = false;

async function renew() {
  if (renewing) { again = true; return; }
  renewing = true;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (!answer.ok) throw new Error(answer.status);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const other = fresh.getElementById(part.id);
      if (!other) continue;
      tellTimes(other);
      if (other.innerHTML === part.innerHTML) continue;
      const focused = place(part);
      part.replaceChildren(...other.childNodes);
      focused();
    }
    reach();
    document.getElementById("daemon").textContent = fresh.getElementById("daemon").textContent;
  } catch {
    beat("off", "out of reach");
  } finally {
    renewing = false;
    if (again) { again = false; renew(); }
  }
}

let known = null;

async function poll() {
  try {
    const answer = await fetch(`${base}api/version`, { cache: "no-store" });
    const version = answer.ok ? await answer.text() : String(Date.now());
    beat("on", "looking every 3 s");
    if (version !== known) { known = version; await renew(); }
  } catch {
    beat("off", "out of reach");
  }
  setTimeout(poll, every);
}

// Some proxies hold a stream back or cut it: then it is asked instead.
function listen() {
  let heard = false;
  const stream = new EventSource(`${base}api/events`);
  const patience = setTimeout(() => { if (!heard) { stream.close(); poll(); } }, 5000);
  const changed = () => { heard = true; beat("on", "live"); renew(); };
  stream.onopen = () => beat("on", "live");
  stream.onmessage = changed;
  for (const name of ["changed", "activity"]) stream.addEventListener(name, changed);
  stream.onerror = () => {
    if (stream.readyState === EventSource.CLOSED) { clearTimeout(patience); poll(); }
    else beat("off", "out of reach");
  };
  addEventListener("pagehide", () => stream.close());
}

// -- what is fetched last -------------------------------------------------------------------

async function load(spot) {
  try {
    spot.setAttribute("aria-busy", "true");
    const answer = await fetch(spot.dataset.load);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    spot.replaceChildren(fresh.getElementById("explanation"));
    reach();
  } catch {
    return;                               // the link that stands there does the same
  } finally {
    spot.removeAttribute("aria-busy");
  }
}

// -- what people do ------------------------------------------------------------------------

function say(text, undo) {
  said.replaceChildren(text);
  if (undo) {
    const button = document.createElement("button");
    button.textContent = "Undo";
    button.onclick = undo;
    said.append(button);
  }
  clearTimeout(say.timer);
  say.timer = setTimeout(() => said.replaceChildren(), 12000);
}

async function act(pipeline, action, wish) {
  const answer = await fetch(`${base}api/pipelines/${encodeURIComponent(pipeline)}/${action}`, {
    method: "POST",
    headers: { "content-type": "application/json", retraind: "page" },
    body: JSON.stringify(wish),
  });
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error([told.detail, told.remedy].filter(Boolean).join(" ") || `It failed (${answer.status}).`);
  return told.done || "Done.";
}

const dialog = document.getElementById("ask");

async function clicked(button) {
  const { pipeline, act: action, title, text, undo, version, delta } = button.dataset;
  const wish = {};
  if (version) wish.version = version;
  if (delta) wish.delta = Number(delta);
  if ("release" in button.dataset) wish.release = true;
  const done = async () => {
    const told = await act(pipeline, action, wish);
    const back = undo && (() => act(pipeline, undo, { reason: `undoes ${action}` })
      .then((told) => { say(told); renew(); }, (error) => say(error.message)));
    say(told, back);
    renew();
  };
  if ("now" in button.dataset) {
    try { await done(); } catch (error) { say(error.message); }
    return;
  }
  const reason = document.getElementById("ask-reason");
  const fault = document.getElementById("ask-fault");
  document.getElementById("ask-title").textContent = title;
  document.getElementById("ask-text").textContent = text;
  reason.value = fault.textContent = "";
  reason.required = "must" in button.dataset;
  dialog.querySelector("form").onsubmit = async (event) => {
    if (event.submitter.value !== "go") return;
    event.preventDefault();
    wish.reason = reason.value;
    try { await done(); dialog.close(); } catch (error) { fault.textContent = error.message; }
  };
  dialog.showModal();
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-act]");
  if (button) clicked(button);
});

tellTimes();
reach();
addEventListener("resize", reach);
document.querySelectorAll("[data-load]").forEach(load);
if (document.querySelector("[data-live]")) listen();
setInterval(tellTimes, 10000);
